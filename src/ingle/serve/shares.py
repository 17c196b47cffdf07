"""Shares of each asker: places, the bytes of bodies that lie in memory, and the pace at which a connection is read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ingle.core.clock import REAL, Clock
from ingle.core.errors import Busy
from ingle.core.process import memory_bytes

_RETRY_S = 10.0
# Of the memory that this process may use, bodies take a sixteenth, and no more than the second number; each lies there three or four times
# while it is read.
_SHARE, _MOST = 16, 256 << 20
_LEAST = 1024  # bytes that a message counts beside its own


@dataclass
class Places:
    """Connections of one kind that may be open at once, of all askers and of each."""

    name: str  # in the plural, as an error says it
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

    per_s: float = 2 << 20  # bytes: thirty times as many as sound takes, and few enough that reading them takes a hundredth of a core
    burst: float = 8 << 20  # bytes that may come at once
    clock: Clock = REAL
    _due: float = 0.0

    async def take(self, size: int) -> None:
        """Wait until it is time to read on."""
        now = self.clock.now()
        self._due = max(self._due, now) + (size + _LEAST) / self.per_s
        await self.clock.pause(max(0.0, self._due - now - self.burst / self.per_s))  # at least once round the loop: others have their turn


class Bodies:
    """The bytes of the bodies that are being read or worked on."""

    def __init__(self, largest: int, memory: int | None = None) -> None:
        """`largest`: of one body. `memory`: that this process may use."""
        self.most = max(4 * largest, min(_MOST, (memory_bytes() if memory is None else memory) // _SHARE))
        self.most_each = self.most // 2
        self._held: Counter[str] = Counter()

    def take(self, asker: str, size: int) -> bool:
        """Count bytes of a body that have come; False if there is no room for them, and they are not counted."""
        if self._held[asker] + size > self.most_each or self._held.total() + size > self.most:
            return False
        self._held[asker] += size
        return True

    def give(self, asker: str, size: int) -> None:
        """Count no more what was taken."""
        self._held[asker] -= size
        if not self._held[asker]:
            del self._held[asker]
