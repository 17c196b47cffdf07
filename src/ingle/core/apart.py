"""Work in a process of one's own: what may take long or much memory, or end whoever does it, ends that process alone.

`ProcessApart` is the side that asks: it starts the process at the first question, lets it go when nobody has asked for some time, and kills
it at a limit, or when nobody waits for the answer any more. `answer_calls` is the side that answers. A message is a line of JSON and bytes.
"""

import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Timer
from typing import Any

from ingle.core.errors import IngleError, Interrupted, fault_of, raised
from ingle.core.limits import give_way, limit_cpu, limit_memory
from ingle.core.pipes import end_worker, read_message, write_message

Answer = tuple[dict[str, Any], bytes]
Call = Callable[[dict[str, Any], bytes], Answer]


class ProcessEnded(Exception):
    """The process ended before it had answered, or was killed at a limit."""


class StopFlag:
    """Whether anybody still waits for some work. Whoever does the work looks here between its pieces."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._end: Callable[[], None] | None = None
        self.is_set = False

    def set(self) -> None:
        """Say that nobody waits any more; what runs in another process ends at once."""
        with self._lock:
            self.is_set = True
            if self._end is not None:
                self._end()

    def check(self) -> None:
        """Raise Interrupted if nobody waits any more."""
        if self.is_set:
            raise Interrupted("work", "Nobody waits for this any more")

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called where `set` comes inside this block."""
        with self._lock:
            self.check()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class ProcessApart:
    """The handle of one process. Safe to use from several threads, which take turns."""

    def __init__(self, module: str, answer_s: float, idle_s: float) -> None:
        """`module`: run as `python -P -m`, and calls `answer_calls`. `answer_s`: longest time for one answer. Starts nothing."""
        self._module, self._answer_s, self._idle_s = module, answer_s, idle_s
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Timer | None = None
        self._closing = False
        self.cpu_s = 0.0
        """Seconds of processor time that all answers took."""

    def ask(self, call: str, facts: Mapping[str, Any], data: bytes = b"", stop: StopFlag | None = None, tries: int = 1) -> Answer:
        """Return the answer to one call.

        Raises what the call raises, ProcessEnded where the process ends `tries` times, Interrupted where `stop` is set meanwhile.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            try:
                answer, found = self._tried({"call": call, **facts}, data, stop or StopFlag(), tries)
            finally:
                self._rest()
        self.cpu_s += float(answer.get("cpu_s", 0.0))
        if fault := answer.get("fault"):
            raise raised(fault)
        return answer, found

    def close(self) -> None:
        """End the process, also in the middle of an answer, and wait for it. A later question starts it again."""
        self._closing = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()
            self._closing = False

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _tried(self, header: dict[str, Any], data: bytes, stop: StopFlag, tries: int) -> Answer:
        for _ in range(tries):
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            timer = Timer(self._answer_s, process.kill)
            timer.start()
            try:
                with stop.ending(process.kill):
                    write_message(process.stdin, header, data)
                    return read_message(process.stdout)
            except (EOFError, OSError):
                self._end()
                stop.check()
                if self._closing:
                    break
            finally:
                timer.cancel()
        raise ProcessEnded

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command, pipe = [sys.executable, "-P", "-m", self._module], subprocess.PIPE
        process = self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=dict(os.environ))
        weakref.finalize(self, end_worker, process)
        return process

    def _rest(self) -> None:
        """End the process after a while, unless somebody asks again."""
        self._timer = Timer(self._idle_s, self._end_idle, (self._process,))
        self._timer.daemon = True
        self._timer.start()

    def _end_idle(self, process: "subprocess.Popen[bytes] | None") -> None:
        with self._lock:
            if process is self._process:
                self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            end_worker(self._process)
        self._process = None


def answer_calls(
    calls: Mapping[str, Call], more_bytes: int, fault: Callable[[Exception], IngleError], nice: int = 0, cpu_s: int | None = None
) -> None:
    """Answer the calls that come by standard input until it ends. `fault`: what to say of an error that is not one of ours.

    `more_bytes`: limit of address space beyond what this process has; `cpu_s`: limit of processor time for one answer, at which the system
    kills this process; `nice`: how far it gives way to others.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    if nice and os.name == "posix":
        os.nice(nice)
    limit_memory(more_bytes)
    give_way()  # whoever asked can ask again; a server that is ended takes all with it
    while True:
        try:
            question, data = read_message(sys.stdin.buffer)
        except EOFError:
            return
        began_s = time.process_time()
        if cpu_s is not None:
            limit_cpu(cpu_s)
        try:
            answer, found = calls[question["call"]](question, data)
        except IngleError as error:
            answer, found = {"fault": fault_of(error)}, b""
        except Exception as error:  # of a library, or of damaged files
            answer, found = {"fault": fault_of(fault(error))}, b""
        write_message(answers, answer | {"cpu_s": time.process_time() - began_s}, found)
