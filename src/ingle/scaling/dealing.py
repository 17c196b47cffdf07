"""Jobs are dealt out to workers (scaling/sweep_worker.py), wherever those are; the job of a worker that was lost is done again.

A worker puts what it says into a queue: (number of the job, header, bytes), and a header of None when it ended without a word.
"""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ingle.core import registry
from ingle.core.apart import ONE_THREAD, end_worker, read_message, write_message
from ingle.core.config import from_table
from ingle.core.errors import Interrupted, raised
from ingle.scaling.sweep_settings import RunSettings
from ingle.train.making import TrainError

MOST_LOSSES = 5  # workers that may be lost one after the other without a single step between; then something is wrong with the job itself
LAST = ("done", "fault")  # kinds of a worker's last message
LOOK_S = 0.2
PATIENCE_S = 60.0
Job = dict[str, Any]
Hear = Callable[[int, dict[str, Any], bytes], None]  # hears a job's number, a message and its bytes
Messages = queue.Queue[tuple[int, dict[str, Any] | None, bytes]]


RunJobs = Callable[[Sequence[Job], int, Hear, Callable[[], bool], str], None]


def find_runner(name: str) -> RunJobs:
    """Return the `run_jobs` of a runner. Raises ConfigError with the names there are."""
    found: RunJobs = registry.find("ingle.scaling.runners", name, "--runner").run_jobs
    return found


class Worker(Protocol):
    """One that does a job, somewhere."""

    def ask(self) -> None:
        """Ask it to write a checkpoint and end."""

    def end(self, patience_s: float = 0.0) -> None:
        """Wait for its end, and make sure of it."""


def deal(
    jobs: Sequence[Job], workers: int, begin: Callable[[int, Job, Messages], Worker], hear: Hear, stopped: Callable[[], bool]
) -> None:  # fmt: skip
    """Do all jobs, the first ones first, so many at a time. `begin` makes the worker of a job.

    Raises the first fault of a job, when all workers have ended; Interrupted when `stopped` says so: each then has written a checkpoint.
    """
    waiting, running = list(enumerate(jobs)), dict[int, Worker]()
    messages: Messages = queue.Queue()
    left, losses = dict(enumerate(jobs)), dict.fromkeys(range(len(jobs)), 0)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop(0)
                running[number] = begin(number, job, messages)
            if stopped():
                raise Interrupted("the sweep", "was interrupted", "", "Finished runs are kept. Run the same command to go on.")
            try:
                number, header, data = messages.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if header is None:
                running.pop(number).end()
                losses[number] += 1
                if losses[number] >= MOST_LOSSES:
                    raise TrainError("a run of the sweep", "ended without a word", f"{MOST_LOSSES} times", "Is there enough memory?")
                hear(number, {"kind": "say", "text": "A worker was lost; another goes on from its last checkpoint."}, b"")
                if left[number]["runs"]:
                    waiting.insert(0, (number, left[number]))
            elif header["kind"] == "fault":
                raise raised(header["fault"])
            elif header["kind"] == "done":
                running.pop(number).end()
            else:
                losses[number] = 0
                hear(number, header, data)
                if header["kind"] == "run":
                    left[number] = without(left[number], header["report"]["key"])
    finally:
        for worker in running.values():
            worker.ask()
        for worker in running.values():
            worker.end(PATIENCE_S)


def without(job: Job, key: str) -> Job:
    """Return a job without a run that is finished: it must not be trained again."""
    return {**job, "runs": [run for run in job["runs"] if from_table(RunSettings, run).key != key]}


class WorkerProcess:
    """A process of this machine with one thread, and what reads its messages."""

    def __init__(self, number: int, job: Job, messages: Messages) -> None:
        command, pipe = [sys.executable, "-P", "-m", "ingle.scaling.sweep_worker"], subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env={**os.environ, **ONE_THREAD}, start_new_session=True
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

    def _read(self, number: int, messages: Messages) -> None:
        assert self._process.stdout is not None
        last = ""
        with suppress(EOFError, OSError, ValueError):
            while last not in LAST:
                header, data = read_message(self._process.stdout)
                last = header["kind"]
                messages.put((number, header, data))
        if last not in LAST:
            messages.put((number, None, b""))
