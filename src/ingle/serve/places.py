"""Places of connections that stay open, and the pace at which they are read."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ingle.core.errors import Busy

_RETRY_S = 10.0
_LEAST = 1024
"""Bytes that a message counts beside its own."""


@dataclass
class Places:
    """Connections of one kind that may be open at once, of all askers and of each."""

    name: str
    """In the plural, as an error says it."""
    most: int
    each: int
    _taken: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def taken(self, asker: str) -> Iterator[None]:
        """Hold a place. Raises Busy where none is left."""
        if self._taken[asker] >= self.each:
            rule = f"You have {self.each} {self.name}, which is the most for one user"
            raise Busy(self.name, rule, "", "Wait for one to end, or end it.", _RETRY_S)
        if self._taken.total() >= self.most:
            raise Busy(self.name, f"There are {self.most} {self.name} already", "", "Try again later.", _RETRY_S)
        self._taken[asker] += 1
        try:
            yield
        finally:
            self._taken[asker] -= 1
            if not self._taken[asker]:
                del self._taken[asker]


@dataclass
class Pace:
    """Slows the reading of a connection that sends more than anybody speaks; it is then held up where it sends."""

    per_s: float = 2 << 20
    """Bytes: thirty times as many as sound takes, and few enough that reading them takes a hundredth of a core."""
    burst: float = 8 << 20
    """Bytes that may come at once."""
    _due: float = 0.0

    async def take(self, size: int) -> None:
        """Wait until it is time to read on."""
        now = time.monotonic()
        self._due = max(self._due, now) + (size + _LEAST) / self.per_s
        await asyncio.sleep(max(0.0, self._due - now - self.burst / self.per_s))  # at least once round the loop: others have their turn
