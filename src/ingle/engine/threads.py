"""Threads that run one kernel together, and the number of them that a step may use."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from ingle.core.process import usable_cores

# How many threads a step takes while other programs want the cores too: measured, a few steps at a time.
# Threads meet two hundred times a step. Where one of them waits for its turn on a core, all wait, and fewer threads are faster. Whether
# that is so is tried out: some steps with the present number, as many with one more or one fewer, in turn, and the faster number stays. A
# trial with fewer begins where the system has taken a core away from this process; one with more as long as fewer are at work than may be.


try:
    import resource
except ImportError:  # Windows doesn't tell, so nothing gives way there
    resource = None  # type: ignore[assignment]

_TURNS = "ABBAABBAABBA"  # a trial: A is a step with the present number of threads, B one with the other
_ENOUGH_S = 0.15  # seconds of steps with the present number after which a trial may end sooner
_HOPELESS = 2.0  # a trial that takes so many times as long ends at once
_FASTER = 0.92  # the other number has to take so much of the time
_SLOWED = 1.3  # steps that take so much longer than usual are reason enough to look again
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LEAST_PAUSE_S = 1.0, 8.0, 0.25  # between trials: twice as long after each one that changed nothing
_MOST_OFF = 60  # steps of another size in a row after which a trial is given up


def preemptions() -> int:
    """Return how often the system has taken a core away from this process so far; 0 where it doesn't tell."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass
class _Trial:
    """Some steps with `other` threads beside as many with the present number, all of about one size."""

    other: int
    size: int
    taken: dict[str, float] = field(default_factory=lambda: {"A": 0.0, "B": 0.0})
    turn: int = 0
    off: int = 0


@dataclass
class GivingWay:
    """The number of threads for the next step. Not for several threads at once: who runs the steps asks and tells."""

    taken_away: Callable[[], int] = preemptions
    _threads: int = 1 << 30
    _trial: _Trial | None = None
    _trial_was_up: bool = False
    _stride: int = 1  # how many threads fewer the next trial takes
    _pause_s: float = _FIRST_PAUSE_S
    _worked: float = 0.0
    _looked: float = 0.0
    _away: int = 0
    _usual: dict[int, float] = field(default_factory=dict)  # seconds of a step by size, when it was last decided
    _lately: dict[int, float] = field(default_factory=dict)

    def threads(self, most: int) -> int:
        """Return how many threads the next step takes, of at most so many."""
        present = min(self._threads, most)
        if self._trial is not None and self._trial.other <= most and _TURNS[self._trial.turn] == "B":
            return self._trial.other
        return present

    def saw(self, threads: int, most: int, rows: int, seconds: float) -> None:
        """Take note of a step: with how many threads, of at most how many, how many rows it had, and how long it took."""
        self._worked += seconds  # the only clock: whoever rests has nothing to try out
        size, now, present = rows.bit_length(), self._worked, min(self._threads, most)
        if self._trial is not None:
            self._try(self._trial, size, seconds, now, present)
            return
        usual = self._usual.setdefault(size, seconds)
        lately = self._lately[size] = 0.75 * self._lately.get(size, usual) + 0.25 * seconds
        since = now - self._looked
        if since < _LEAST_PAUSE_S or (since < self._pause_s and lately < _SLOWED * usual):
            return
        away = self.taken_away()
        fewer, self._away = away > self._away and present > 1, away
        if fewer and (present == most or self._trial_was_up):
            self._trial, self._trial_was_up = _Trial(max(1, present - self._stride), size), False
        elif present < most:
            self._trial, self._trial_was_up = _Trial(present + 1, size), True
        self._looked = now

    def _try(self, trial: _Trial, size: int, seconds: float, now: float, present: int) -> None:
        if size != trial.size:
            trial.off += 1
            if trial.off > _MOST_OFF:
                self._trial, self._looked = None, now
            return
        trial.off = 0
        trial.taken[_TURNS[trial.turn]] += seconds
        trial.turn += 1
        long_enough = trial.turn % 4 == 0 and trial.taken["A"] >= _ENOUGH_S  # steps of hundreds of rows: few of them tell
        hopeless = trial.turn in (2, 4, 8) and trial.taken["B"] > _HOPELESS * trial.taken["A"]
        if trial.turn < len(_TURNS) and not long_enough and not hopeless:
            return
        faster = trial.taken["B"] < _FASTER * trial.taken["A"]
        self._threads = trial.other if faster else present
        self._pause_s = _FIRST_PAUSE_S if faster else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._stride = 1 if faster or trial.other > present or trial.other == 1 else 2 * self._stride  # several programs want several cores
        self._usual = {size: trial.taken["B" if faster else "A"] / (trial.turn / 2)}
        self._lately, self._trial, self._away = {}, None, self.taken_away()
        self._looked = now - (self._pause_s if faster else 0.0)  # where it pays, one more or fewer may pay, too


Job = tuple[Callable[..., None], tuple[int, ...]]

_MANY_ROWS = 32  # rows from which on a step is taken for one that reads prompts


class Cores:
    """The thread count of some backends' steps. Steps leave cores alone that are lent to another program: threads meet two hundred times a
    step, and one that waits for its turn slows down all others."""

    def __init__(self, threads: int | None = None, gives_way: bool = True) -> None:
        """`threads`: the most, by default one for each core that this process may use. `gives_way`: whether fewer are taken where that is
        faster, because other programs compute too.
        """
        self.most = threads or usable_cores()
        # Steps that read prompts share out long work, so another number may be right for them.
        self._giving_way = (GivingWay(), GivingWay()) if gives_way and self.most > 1 else None
        self.lent = 0  # cores lent to other programs; may be changed at any time, and holds from the next step on

    @property
    def limit(self) -> int:
        """The most threads that a step may take now."""
        return max(1, min(self.most, usable_cores() - self.lent)) if self.lent else self.most

    def threads(self, rows: int) -> int:
        """Return how many threads the next step takes, of so many rows."""
        return self.limit if self._giving_way is None else self._giving_way[rows >= _MANY_ROWS].threads(self.limit)

    def saw(self, threads: int, rows: int, seconds: float) -> None:
        """Take note of how long a step of so many rows took with so many threads."""
        if self._giving_way is not None:
            self._giving_way[rows >= _MANY_ROWS].saw(threads, self.limit, rows, seconds)


class Team:
    """Up to `most` threads, the caller's included. The kernel itself makes them wait for each other before it returns."""

    def __init__(self, most: int) -> None:
        self._meetings = np.zeros((most + 1, 16), np.int64)  # one for each number of threads: each counts in rounds of its own
        self._inboxes: list[SimpleQueue[Job | None]] = []
        weakref.finalize(self, _dismiss, self._inboxes)

    def meeting(self, threads: int) -> int:
        """Return the address of the barrier for so many threads of a kernel (kernels/step_parts.py)."""
        address: int = self._meetings[threads].ctypes.data
        return address

    def run(self, threads: int, kernel: Callable[..., None], *arguments: int) -> None:
        """Run kernel(*arguments, thread) on so many threads. Returns when the caller's own part, which waits for all, is done."""
        while len(self._inboxes) < threads - 1:  # now: they get the priority of who computes, not of who opened the model
            self._inboxes.append(SimpleQueue())
            work = (self._inboxes[-1], len(self._inboxes), self._meetings)
            threading.Thread(target=_work, args=work, name=f"ingle-{len(self._inboxes)}", daemon=True).start()
        for inbox in self._inboxes[: threads - 1]:
            inbox.put((kernel, arguments))
        kernel(*arguments, 0)


def _work(inbox: "SimpleQueue[Job | None]", number: int, _meetings: npt.NDArray[np.int64]) -> None:
    """Run kernels until dismissed. `_meetings` stays referenced, because a thread may still read one after the caller has gone on."""
    while job := inbox.get():
        kernel, arguments = job
        kernel(*arguments, number)


def _dismiss(inboxes: "list[SimpleQueue[Job | None]]") -> None:
    for inbox in inboxes:
        inbox.put(None)
