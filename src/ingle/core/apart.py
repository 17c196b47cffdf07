"""Work in a process of one's own: what may take long or much memory, or end whoever does it, ends that process alone.

`ProcessApart` is the side that asks: it starts the process at the first question, lets it go when nobody has asked for some time, and
kills it at a limit, or when nobody waits for the answer any more. `answer_calls` is the side that answers. A message is a line of JSON
and the bytes that it announces.
"""

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock
from typing import IO, Any

from ingle.core.clock import REAL, Clock, TimerHandle
from ingle.core.errors import IngleError, Interrupted, fault_of, raised
from ingle.core.process import give_way, limit_cpu, limit_memory

Answer = tuple[dict[str, Any], bytes]
Call = Callable[[dict[str, Any], bytes], Answer]
# Variables with which libraries start no threads of their own.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_MOST_LINE = 64 << 20


class ApartError(Exception):
    """Work in another process that gave no answer. Whoever asked says what that means."""


class ProcessEnded(ApartError):
    """The process ended before it had answered, or was killed at a limit."""


class CallFailed(ApartError):
    """The call raised an error that is not one of ours: of a library, or of damaged files. The process goes on."""


class ProcessBusy(ApartError):
    """Others were at it for all the time that this call could wait."""


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

    def __init__(
        self, module: str, answer_s: float | None, idle_s: float | None = None, start_s: float = 0.0, patience_s: float | None = None,
        environment: Mapping[str, str] | None = None, clock: Clock = REAL,
    ) -> None:  # fmt: skip
        """Start nothing.

        `module`: run as `python -P -m`, and calls `answer_calls`. `answer_s`: longest time for one answer; `start_s`: what a new process
        may take beyond that for its first. `idle_s`: time without a question after which it ends. `patience_s`: longest wait for one's
        turn. None = no such limit. `environment`: variables beside those of this process. `clock`: by which it is patient.
        """
        self._module, self._answer_s, self._idle_s, self._start_s, self._patience_s = module, answer_s, idle_s, start_s, patience_s
        self._environment, self._clock = environment or {}, clock
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: TimerHandle | None = None
        self._closing = False
        self.cpu_s = 0.0  # seconds of processor time that all answers took

    def ask(self, call: str, facts: Mapping[str, Any], data: bytes = b"", stop: StopFlag | None = None, tries: int = 1) -> Answer:
        """Return the answer to one call.

        Raises what the call raises, ProcessEnded where the process ends `tries` times, CallFailed, ProcessBusy, and Interrupted where
        `stop` is set meanwhile.
        """
        if not self._lock.acquire(timeout=-1 if self._patience_s is None else self._patience_s):
            raise ProcessBusy
        try:
            if self._timer is not None:
                self._timer.cancel()
            answer, found = self._tried({"call": call, **facts}, data, stop or StopFlag(), tries)
        finally:
            self._rest()
            self._lock.release()
        self.cpu_s += float(answer.get("cpu_s", 0.0))
        if failed := answer.get("failed"):
            raise CallFailed(failed)
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
        reason = "it was closed"
        for _ in range(tries):
            is_new = self.pid is None
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            limit_s = None if self._answer_s is None else self._answer_s + is_new * self._start_s
            late = Event()
            alarm = None if limit_s is None else self._clock.after(limit_s, partial(_end_late, process, late))
            try:
                with stop.ending(process.kill):
                    write_message(process.stdin, header, data)
                    return read_message(process.stdout)
            except (EOFError, OSError):
                reason = f"it took more than {limit_s:g} seconds" if late.is_set() else _ended(process)
                self._end()
                stop.check()
                if self._closing:
                    break
            except KeyboardInterrupt:  # its answer would pass for that of the next question
                self._end()
                raise
            finally:
                if alarm is not None:
                    alarm.cancel()
        raise ProcessEnded(reason)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command, pipe = [sys.executable, "-P", "-m", self._module], subprocess.PIPE
        environment = {**os.environ, **self._environment}
        process = self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        weakref.finalize(self, end_worker, process)
        return process

    def _rest(self) -> None:
        """End the process after a while, unless somebody asks again."""
        if self._idle_s is not None:
            process = self._process
            self._timer = self._clock.after(self._idle_s, lambda: self._end_idle(process))

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


def answer_calls(calls: Mapping[str, Call], more_bytes: int | None = None, nice: int = 0, cpu_s: int | None = None) -> None:
    """Answer the calls that come by standard input, and end this process with it, also in the middle of an answer.

    `more_bytes`: limit of address space beyond what this process has; `cpu_s`: limit of processor time for one answer, at which the system
    kills this process; `nice`: how far it gives way to others.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    if nice and os.name == "posix":
        os.nice(nice)
    give_way()  # whoever asked can ask again; a server that is ended takes all with it
    questions: SimpleQueue[Answer] = SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), name="listening", daemon=True).start()
    if more_bytes is not None:
        limit_memory(more_bytes)
    while True:
        question, data = questions.get()
        began_s = time.process_time()
        if cpu_s is not None:
            limit_cpu(cpu_s)
        try:
            answer, found = calls[question["call"]](question, data)
        except IngleError as error:
            answer, found = {"fault": fault_of(error)}, b""
        except Exception as error:
            answer, found = {"failed": f"{type(error).__name__}: {error}"[:300]}, b""
        write_message(answers, answer | {"cpu_s": time.process_time() - began_s}, found)


def _listen(questions: "SimpleQueue[Answer]") -> None:
    """Take in questions. Where nobody is left who could ask, end this process, whatever it does."""
    with suppress(EOFError, OSError):
        while True:
            questions.put(read_message(sys.stdin.buffer))
    os._exit(1)


def write_message(stream: IO[bytes], header: dict[str, Any], data: bytes = b"") -> None:
    """Write a header with its bytes, and flush."""
    stream.write(json.dumps(header | {"bytes": len(data)}).encode() + b"\n" + data)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Return a header and the bytes that it announces. Raises EOFError where the other side has ended."""
    line = stream.readline(_MOST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    size = int(header.get("bytes", 0))
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return header, data


def end_worker(process: "subprocess.Popen[bytes]") -> None:
    """Kill a worker, wait for its end, and close its pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _end_late(process: "subprocess.Popen[bytes]", late: Event) -> None:
    late.set()
    process.kill()


def _ended(process: "subprocess.Popen[bytes]") -> str:
    """Return how a process ended whose pipes have."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(1)
        return f"exit code {code}" if code >= 0 else f"its process was ended by signal {-code}"
    return "it closed its answers"
