"""A queue in which owners take turns. Within one owner: first come, first served."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ingle.core.errors import Busy

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items waiting, by owner. Not thread-safe."""

    def __init__(self, most: int, most_per_owner: int) -> None:
        self._most, self._most_per_owner = most, most_per_owner
        self._lines: dict[str, deque[Item]] = {}
        """Lines by owner, in the order of their turns."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, owner: str, item: Item, retry_after_s: float) -> None:
        """Append an item to its owner's line. Raises Busy if too many wait already."""
        line = self._lines.get(owner, ())
        if len(line) >= self._most_per_owner:
            raise Busy(
                "queue",
                f"You have {self._most_per_owner} requests waiting, which is the most for one user",
                "",
                "Ask again later.",
                retry_after_s,
            )
        if len(self) >= self._most:
            raise Busy("queue", f"The server has {self._most} requests waiting and takes no more", "", "Ask again later.", retry_after_s)
        self._lines.setdefault(owner, deque()).append(item)

    def next(self, ready: Callable[[Item], bool]) -> tuple[str, Item] | None:
        """Return the first ready item of the owner whose turn it is, with that owner. It stays in the queue."""
        for owner, line in self._lines.items():
            for item in line:
                if ready(item):
                    return owner, item
        return None

    def take(self, owner: str, item: Item) -> None:
        """Remove an item; its owner's next turn comes after all others'."""
        line = self._lines.pop(owner)
        line.remove(item)
        if line:
            self._lines[owner] = line

    def drop(self, gone: Callable[[Item], bool]) -> list[Item]:
        """Remove and return all items for which `gone` is true."""
        out = [item for line in self._lines.values() for item in line if gone(item)]
        lines = {owner: deque(item for item in line if item not in out) for owner, line in self._lines.items()} if out else self._lines
        self._lines = {owner: line for owner, line in lines.items() if line}
        return out
