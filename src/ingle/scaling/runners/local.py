"""This machine: one process a core, each with one thread (two threads in one training are slower than two trainings)."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ingle.core.errors import Interrupted, raised
from ingle.core.pipes import end_worker, read_message, write_message
from ingle.train.trouble import TrainError

WORDS = "on this machine, one process a core"
MOST_LOSSES = 5
"""Workers that may be lost one after the other without a single step between; then something is wrong with the job itself."""
_LOOK_S = 0.2
_PATIENCE_S = 60.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Hear = Callable[[int, dict[str, Any], bytes], None]
"""Hears a job's number, a message and its bytes."""


def run_jobs(jobs: Sequence[dict[str, Any]], workers: int, hear: Hear, stopped: Callable[[], bool], address: str = "") -> None:
    """Do all jobs, the first ones first, with so many processes at a time. `address` is for other runners.

    Raises the first fault of a job, when all processes have ended; Interrupted when `stopped` says so: each process then has written a
    checkpoint.
    """
    waiting, running = list(enumerate(jobs)), dict[int, _Worker]()
    messages: queue.Queue[tuple[int, dict[str, Any] | None, bytes]] = queue.Queue()
    losses = dict.fromkeys(range(len(jobs)), 0)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop(0)
                running[number] = _Worker(number, job, messages)
            if stopped():
                raise Interrupted("the sweep", "was interrupted", "", "Finished runs are kept. Run the same command to go on.")
            with suppress(queue.Empty):
                number, header, data = messages.get(timeout=_LOOK_S)
                if header is None:
                    running.pop(number).end()
                    losses[number] += 1
                    if losses[number] >= MOST_LOSSES:
                        raise TrainError("a run of the sweep", "ended without a word", f"{MOST_LOSSES} times", "Is there enough memory?")
                    waiting.insert(0, (number, jobs[number]))
                    continue
                if header["kind"] == "fault":
                    raise raised(header["fault"])
                if header["kind"] == "done":
                    running.pop(number).end()
                    continue
                losses[number] = 0
                hear(number, header, data)
    finally:
        for worker in running.values():
            worker.ask()
        for worker in running.values():
            worker.end(_PATIENCE_S)


class _Worker:
    """A process, and the thread that reads its messages."""

    def __init__(self, number: int, job: dict[str, Any], messages: "queue.Queue[tuple[int, dict[str, Any] | None, bytes]]") -> None:
        command, pipe = [sys.executable, "-P", "-m", "ingle.scaling.worker"], subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env={**os.environ, **_ONE_THREAD}, start_new_session=True
        )  # its own session: Ctrl-C reaches it through its driver alone
        threading.Thread(target=self._read, args=(number, messages), daemon=True).start()
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died already: its reader says so
            write_message(self._process.stdin, job)

    def ask(self) -> None:
        """Ask it to write a checkpoint and end."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def end(self, patience_s: float = 0.0) -> None:
        """Wait for its end, and make sure of it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        end_worker(self._process)

    def _read(self, number: int, messages: "queue.Queue[tuple[int, dict[str, Any] | None, bytes]]") -> None:
        assert self._process.stdout is not None
        last = ""
        with suppress(EOFError, OSError, ValueError):
            while last not in ("done", "fault"):
                header, data = read_message(self._process.stdout)
                last = header["kind"]
                messages.put((number, header, data))
        if last not in ("done", "fault"):
            messages.put((number, None, b""))
