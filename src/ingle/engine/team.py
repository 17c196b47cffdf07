"""Threads that run one kernel together, and the number of them that a step may use."""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from ingle.engine.giving_way import GivingWay

Job = tuple[Callable[..., None], tuple[int, ...]]

_MANY_ROWS = 32
"""Rows from which on a step is taken for one that reads prompts."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
        self.lent = 0
        """Cores lent to other programs; may be changed at any time, and holds from the next step on."""

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
