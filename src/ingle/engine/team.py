"""Threads that run the same kernel together and wait for the next one."""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

Job = tuple[Callable[..., None], tuple[int, ...]]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Team:
    """`threads` threads, the caller among them. The kernel itself makes them wait for each other before it returns."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.counter = np.zeros(16, np.int64)
        """Where the threads of a kernel meet (kernels/sync.py); a thread may still look at it when the caller has gone on."""
        self._inboxes: list[SimpleQueue[Job | None]] = []
        weakref.finalize(self, _dismiss, self._inboxes)

    def run(self, kernel: Callable[..., None], *arguments: int) -> None:
        """Runs kernel(*arguments, thread) on every thread; returns when the caller's own part, which waits for all, is done."""
        while len(self._inboxes) < self.threads - 1:  # now: they get the priority of who computes, not of who opened the model
            self._inboxes.append(SimpleQueue())
            work = (self._inboxes[-1], len(self._inboxes), self.counter)
            threading.Thread(target=_work, args=work, name=f"ingle-{len(self._inboxes)}", daemon=True).start()
        for inbox in self._inboxes:
            inbox.put((kernel, arguments))
        kernel(*arguments, 0)


def _work(inbox: "SimpleQueue[Job | None]", number: int, _counter: npt.NDArray[np.int64]) -> None:  # held as long as the thread lives
    while job := inbox.get():
        kernel, arguments = job
        kernel(*arguments, number)


def _dismiss(inboxes: "list[SimpleQueue[Job | None]]") -> None:
    for inbox in inboxes:
        inbox.put(None)
