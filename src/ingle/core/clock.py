"""Time as somebody with patience sees it. Whoever waits takes a `Clock`, so that a test moves an hour on by hand."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from threading import Timer
from typing import Protocol


class TimerHandle(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Let it not come."""
        ...


def _after(seconds: float, call: Callable[[], object]) -> TimerHandle:
    timer = Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


@dataclass(frozen=True, slots=True)
class Clock:
    """One way to read the time and to wait. All in seconds."""

    now: Callable[[], float] = time.perf_counter  # since some moment; never goes back
    wall: Callable[[], float] = time.time  # since 1970, as people count
    sleep: Callable[[float], None] = time.sleep  # holds up a thread
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep  # holds up a task
    after: Callable[[float, Callable[[], object]], TimerHandle] = _after  # has something called then, in another thread
    within: Callable[[float], AbstractAsyncContextManager[object]] = asyncio.timeout  # ends a block with TimeoutError then


REAL = Clock()
