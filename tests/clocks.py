"""A clock that stands still until a test moves it."""

import asyncio
import heapq
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ingle.core.clock import Clock

WALL = 1_800_000_000.0
"""Where it stands at first, in seconds since 1970."""


@dataclass
class HandTimer:
    """Something that is called when its time has come."""

    call: Callable[[], object] | None

    def cancel(self) -> None:
        self.call = None


@dataclass
class HandClock:
    """Whoever waits by `clock` waits until `move` has brought it so far."""

    time: float = 0.0
    _ahead: list[tuple[float, int, HandTimer]] = field(default_factory=list)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def clock(self) -> Clock:
        """As those take it who wait."""
        return Clock(
            now=lambda: self.time, wall=lambda: WALL + self.time, sleep=self._sleep, pause=self._pause, after=self._after,
            within=self._within,
        )  # fmt: skip

    @property
    def waits(self) -> list[float]:
        """For how many seconds each still waits, the shortest first."""
        with self._lock:
            return sorted(due - self.time for due, _, alarm in self._ahead if alarm.call is not None)

    def move(self, seconds: float) -> None:
        """Moves on, and wakes whoever has waited long enough, in the order of their times."""
        end = self.time + seconds
        while True:
            with self._lock:
                if not self._ahead or self._ahead[0][0] > end:
                    self.time = end
                    return
                self.time, _, alarm = heapq.heappop(self._ahead)
                call, alarm.call = alarm.call, None
            if call is not None:
                call()

    async def settle(self) -> None:
        """Lets the tasks of this loop do all that they can do without waiting."""
        for _ in range(20):
            await asyncio.sleep(0)

    def _after(self, seconds: float, call: Callable[[], object]) -> HandTimer:
        alarm = HandTimer(call)
        with self._lock:
            heapq.heappush(self._ahead, (self.time + seconds, next(self._count), alarm))
        return alarm

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            over = threading.Event()
            self._after(seconds, over.set)
            over.wait()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        alarm = self._after(seconds, lambda: loop.call_soon_threadsafe(over.set))
        try:
            await over.wait()
        finally:
            alarm.cancel()

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            alarm = self._after(seconds, lambda: loop.call_soon_threadsafe(limit.reschedule, loop.time()))
            try:
                yield
            finally:
                alarm.cancel()
