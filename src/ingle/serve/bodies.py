"""The bytes of bodies that a server holds, of all askers and of each: a body lies in memory three or four times while it is read."""

from collections import Counter

from ingle.core.limits import memory_bytes

_SHARE, _MOST = 16, 256 << 20
"""Of the memory that this process may use, bodies take a sixteenth, and no more than the second number."""


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
