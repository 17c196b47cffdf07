"""Threads that run the same kernel together and wait for the next one, and how many of them a step may have."""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from ingle.engine.giving_way import GivingWay

Job = tuple[Callable[..., None], tuple[int, ...]]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cores:
    """How many threads the steps of some backends take. While another program is lent cores, steps leave these alone: threads that meet
    two hundred times a step, one of which waits for its turn, take longer together than fewer that don't wait."""

    def __init__(self, threads: int | None = None, gives_way: bool = True) -> None:
        """`threads`: the most, by default one for each core that this process may use. `gives_way`: whether fewer are taken where that is
        faster, because other programs compute too.
        """
        self.most = threads or usable_cores()
        self._giving_way = GivingWay() if gives_way and self.most > 1 else None
        self.lent = 0
        """Cores that others compute on now; may be changed at any time, and holds from the next step on."""

    @property
    def limit(self) -> int:
        """The most threads that a step may take now."""
        return max(1, min(self.most, usable_cores() - self.lent)) if self.lent else self.most

    @property
    def now(self) -> int:
        """Threads of the next step."""
        return self.limit if self._giving_way is None else self._giving_way.threads(self.limit)

    def saw(self, threads: int, rows: int, seconds: float) -> None:
        """Take note of how long a step of so many rows took with so many threads."""
        if self._giving_way is not None:
            self._giving_way.saw(threads, self.limit, rows, seconds)


class Team:
    """Up to `most` threads, the caller among them. The kernel itself makes them wait for each other before it returns."""

    def __init__(self, most: int) -> None:
        self._meetings = np.zeros((most + 1, 16), np.int64)  # one for each number of threads: each counts in rounds of its own
        self._inboxes: list[SimpleQueue[Job | None]] = []
        weakref.finalize(self, _dismiss, self._inboxes)

    def meeting(self, threads: int) -> int:
        """The address at which so many threads of a kernel meet (kernels/sync.py)."""
        address: int = self._meetings[threads].ctypes.data
        return address

    def run(self, threads: int, kernel: Callable[..., None], *arguments: int) -> None:
        """Runs kernel(*arguments, thread) on so many threads; returns when the caller's own part, which waits for all, is done."""
        while len(self._inboxes) < threads - 1:  # now: they get the priority of who computes, not of who opened the model
            self._inboxes.append(SimpleQueue())
            work = (self._inboxes[-1], len(self._inboxes), self._meetings)
            threading.Thread(target=_work, args=work, name=f"ingle-{len(self._inboxes)}", daemon=True).start()
        for inbox in self._inboxes[: threads - 1]:
            inbox.put((kernel, arguments))
        kernel(*arguments, 0)


def _work(inbox: "SimpleQueue[Job | None]", number: int, _meetings: npt.NDArray[np.int64]) -> None:
    """`_meetings` is held as long as the thread lives: it may still look at one when the caller has gone on."""
    while job := inbox.get():
        kernel, arguments = job
        kernel(*arguments, number)


def _dismiss(inboxes: "list[SimpleQueue[Job | None]]") -> None:
    for inbox in inboxes:
        inbox.put(None)
