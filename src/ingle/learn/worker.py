"""The learner as a process of its own: it gives way to everything else, keeps to its share of memory, and ends when it is long idle.

`ingle serve` starts one (learn/supervisor.py) and tells it through its standard input when answers need the machine: `hold`, `go`. When
that input ends, so does the process, at once: what it was learning is pending again for the next one. It tells in turn, on its standard
output, when a lesson begins and when it is over: `busy`, `idle`.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ingle.core.event import Sink
from ingle.home.place import Home
from ingle.learn.learner import LOCK, Learned, Learner, Outcome, Trainer, Watch, learn_once
from ingle.learn.settings import LearnSettings
from ingle.learn.supervisor import BUSY, HOLD, IDLE
from ingle.learn.work import standing

if TYPE_CHECKING:
    from sqlalchemy import Engine

EXIT_MEMORY = 75
"""Of a process that would have taken more memory than it may."""
_NICE = 19
_LOOK_S = 0.25
"""Between two looks at whether anything has come, and at the memory that is used."""
_ANYWAY_S = 30.0
"""After which it looks closely although nothing seems to have come: a model may be here again."""


@dataclass
class Signals:
    """What a learner was told from outside."""

    held: bool = False
    ended: bool = False
    """Whether it is to stop after the lesson that it is at."""
    trying: Sequence[str] = field(default=())
    """Ids of what is being learned now."""


def follow(
    home: Home, engine: "Engine", trainer: Trainer, sink: Sink, settings: LearnSettings, signals: Signals,
    watch: Watch = Watch(), stay: bool = True,  # noqa: B008 - frozen
) -> Learned:  # fmt: skip
    """Learns what is pending and, with `stay`, what comes, until nothing came for `idle_s`, or the signals say so.

    Raises HomeError if another learner is at work in this home, and what `Learner.learn` raises.
    """

    def stopped() -> bool:
        return signals.held or signals.ended or watch.stopped()

    def trying(ids: Sequence[str]) -> None:
        signals.trying = tuple(ids)
        watch.trying(ids)

    outcomes = list[Outcome]()
    with home.lock(LOCK, timeout_s=0):
        learner = Learner(home, engine, trainer, sink, replace(watch, stopped=stopped, trying=trying), settings.ratings)
        with memory_guard(settings.memory_mb, lambda: _too_large(learner, signals)):
            learner.start()
            seen, last, looked = "", time.monotonic(), 0.0
            while not (signals.ended or watch.stopped()):
                now = time.monotonic()
                before = seen if signals.held else standing(engine)
                if before != seen or (not signals.held and now - looked >= _ANYWAY_S):
                    found = learn_once(learner).outcomes
                    outcomes += found
                    last, looked = time.monotonic() if found else last, time.monotonic()
                    seen = "" if signals.held else before
                if not signals.held and (not stay or time.monotonic() - last >= settings.idle_s):
                    break
                time.sleep(_LOOK_S)
    return Learned(tuple(outcomes))


def give_way() -> None:
    """Lowers the priority of this thread, and of those that it starts, as far as it goes, where there is such a thing.

    Being nice is not enough on Linux: a nice process that has a core keeps it for some milliseconds when another one wakes up, in which a
    token would be written.
    """
    if os.name != "nt":
        with suppress(OSError):
            os.nice(_NICE)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def tell(stream: BinaryIO) -> Callable[[Sequence[str]], None]:
    """What tells the process that started this one whether a lesson is being learned; see `Watch.trying`."""

    def trying(ids: Sequence[str]) -> None:
        with suppress(OSError):  # nobody is there any more: found by `listen`
            stream.write(BUSY if ids else IDLE)
            stream.flush()

    return trying


def listen(signals: Signals, stream: BinaryIO, end: Callable[[], None] = lambda: os._exit(0)) -> threading.Thread:
    """Reads `hold` and `go` from the process that started this one, in a thread, and ends this one when that one is gone."""

    def read() -> None:
        for line in stream:
            signals.held = line == HOLD
        end()

    thread = threading.Thread(target=read, name="listening", daemon=True)
    thread.start()
    return thread


@contextmanager
def memory_guard(most_mb: int, too_large: Callable[[], None]) -> Iterator[None]:
    """Looks every quarter of a second whether the process has grown too large, where the system tells; then calls `too_large`."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            if memory_bytes() > most_mb << 20:
                too_large()
                return

    thread = threading.Thread(target=look, name="memory", daemon=True)
    if most_mb:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join()


def memory_bytes() -> int:
    """Memory of this process: what it has now where the system tells (Linux), else the most that it has had; 0 = unknown."""
    platform: str = sys.platform
    if platform == "linux":
        # Not the peak: there a process begins with that of its parent.
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if platform == "win32":
        return 0
    from ingle.train.trouble import peak_bytes

    return peak_bytes()


def _too_large(learner: Learner, signals: Signals) -> None:
    """Writes down what was too large, and ends: a process can't be made to give memory back."""
    learner.tries.out_of_memory(signals.trying)
    learner.watch.say("the learner would have taken more memory than it may (learn.memory_mb)")
    os._exit(EXIT_MEMORY)
