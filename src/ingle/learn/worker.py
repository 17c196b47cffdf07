"""The learner as a process of its own, with low priority and limited memory. It ends when it has been idle for long.

`ingle serve` starts it (learn/supervisor.py) and writes `hold`, `beside` and `go` to its standard input, as answers need the machine.
When that input ends, the process ends at once, and what it was learning is pending again. It writes `busy` and `idle` to its standard
output when a lesson begins and ends, and where it pauses.

A lesson gives way while answers are written beside it: it works a part of the time, and in the pauses the lent core is the server's
again. On two cores one thread writes as little as 0.6 times as fast as two; so a lent core alone may cost an answer more than a quarter
of its speed.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO

from ingle.core.clock import REAL, Clock
from ingle.core.process import free_bytes, own_bytes
from ingle.core.report import Sink
from ingle.home.place import Home
from ingle.learn.learner import LOCK, Learned, Learner, LearnerWatch, LessonOutcome, Trainer, learn_once
from ingle.learn.learning_settings import LearnSettings
from ingle.learn.supervisor import BESIDE, BUSY, HOLD, IDLE
from ingle.learn.work import standing

if TYPE_CHECKING:
    from sqlalchemy import Engine


EXIT_MEMORY = 75  # exit code of a process that needed too much memory
_NICE = 19
_LOOK_S = 0.25  # interval of the checks for work and for used memory
_ANYWAY_S = 30.0  # interval of full checks without any sign of work: a model may be back


@dataclass
class Signals:
    held: bool = False
    beside: bool = False  # whether answers are being written, not so many that it is held
    ended: bool = False  # whether it should stop after the current lesson
    trying: Sequence[str] = field(default=())  # ids of the examples of the current lesson


def follow(
    home: Home, engine: "Engine", trainer: Trainer, sink: Sink, settings: LearnSettings, signals: Signals,
    watch: LearnerWatch = LearnerWatch(), stay: bool = True,  # noqa: B008 - frozen
) -> Learned:  # fmt: skip
    """Learn what is pending and, with `stay`, what comes later, until nothing came for `idle_s` or the signals say stop.

    Raises HomeError if this home has another learner running, and the errors of `Learner.learn`.
    """

    def stopped() -> bool:
        return signals.held or signals.ended or watch.stopped()

    def trying(ids: Sequence[str]) -> None:
        signals.trying = tuple(ids)
        watch.trying(ids)

    outcomes = list[LessonOutcome]()
    with home.lock(LOCK, timeout_s=0):
        learner = Learner(home, engine, trainer, sink, replace(watch, stopped=stopped, trying=trying), settings.ratings)
        most = settings.memory_mb << 20 or (free_bytes() or 0) + own_bytes()
        with memory_guard(most, lambda: bool(signals.trying), lambda: _too_large(learner, signals)):
            learner.start()
            seen, last, looked = "", time.monotonic(), 0.0
            while not (signals.ended or watch.stopped()):
                now = time.monotonic()
                before = seen if signals.held else standing(engine)
                if before != seen or (not signals.held and now - looked >= _ANYWAY_S):
                    new = learn_once(learner).outcomes
                    outcomes += new
                    last, looked = time.monotonic() if new else last, time.monotonic()
                    seen = "" if signals.held else before
                if not signals.held and (not stay or time.monotonic() - last >= settings.idle_s):
                    break
                time.sleep(_LOOK_S)
    return Learned(tuple(outcomes))


def give_way() -> None:
    """Set this thread, and those that it starts, to the lowest priority that the system has.

    Niceness is not enough on Linux: a nice process keeps its core for some milliseconds when another one wakes up, enough for a token.
    """
    if os.name != "nt":
        with suppress(OSError):
            os.nice(_NICE)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def tell(stream: BinaryIO) -> Callable[[object], None]:
    """Return a callback that tells the parent process whether the learner is busy: with anything that is true."""

    def busy(what: object) -> None:
        with suppress(OSError):  # nobody is there any more: found by `listen`
            stream.write(BUSY if what else IDLE)
            stream.flush()

    return busy


def listen(signals: Signals, stream: Iterable[bytes], end: Callable[[], None] = lambda: os._exit(0)) -> threading.Thread:
    """Read `hold`, `beside` and `go` from the parent process in a thread; call `end` when the parent is gone."""

    def read() -> None:
        for line in stream:
            signals.held, signals.beside = line == HOLD, line == BESIDE
        end()

    thread = threading.Thread(target=read, name="listening", daemon=True)
    thread.start()
    return thread


@contextmanager
def memory_guard(most: int, busy: Callable[[], bool], too_large: Callable[[], None]) -> Iterator[None]:
    """Within the block, check the process's own memory every quarter of a second; above `most` bytes (0 = never), call `too_large`.

    Only while it is `busy`: an end between two lessons would refuse nothing, and the next process would end in the same way.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            if busy() and memory_bytes() > most:
                too_large()
                return

    thread = threading.Thread(target=look, name="memory", daemon=True)
    if most:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join()


def memory_bytes() -> int:
    """Return the memory of this process: on Linux the present one, files that it reads aside, else the peak; 0 = unknown."""
    platform: str = sys.platform
    if platform == "linux":
        return own_bytes()  # not the peak: on Linux a process begins with its parent's
    if platform == "win32":
        return 0
    from ingle.train.making import peak_bytes

    return peak_bytes()


def _too_large(learner: Learner, signals: Signals) -> None:
    """Note the examples that were too large, and end the process, which is the only sure way to free its memory."""
    learner.tries.out_of_memory(signals.trying)
    learner.watch.say("the learner needed more memory than there is, or than learn.memory_mb allows")
    os._exit(EXIT_MEMORY)


WORKS = 0.33  # share of the time that a lesson works in while answers are written
_LEAST_S = 0.05  # neither a shorter piece of work nor a shorter pause


@dataclass
class Breath:
    """Called between any two pieces of a lesson's work, some tenths of a second apart."""

    signals: Signals
    busy: Callable[[bool], None]  # tells the server whether the learner needs the lent core
    clock: Clock = REAL
    _since: float = field(default=float("-inf"))

    def __call__(self) -> None:
        """Pause as long as is due; while the learner is held, until it is not."""
        worked = min(1.0, self.clock.now() - self._since)
        if self.signals.held or (self.signals.beside and worked >= _LEAST_S):
            self.busy(False)
            until = self.clock.now() + worked * (1 / WORKS - 1)
            while not self.signals.ended and (self.signals.held or (self.signals.beside and self.clock.now() < until)):
                self.clock.sleep(_LEAST_S)
            self.busy(True)
            self._since = self.clock.now()
        elif not self.signals.beside:
            self._since = self.clock.now()
