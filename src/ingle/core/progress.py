"""How far some work is: the shapes of a callback that hears it, and the callback of whoever doesn't listen."""

from collections.abc import Callable
from typing import Protocol

Counted = Callable[[int, int], None]  # hears how much is done, and of how much
Progress = Callable[[str, int, int], None]  # hears the label of some work, how many of its pieces are done, and how many there are
# Hears the label of a file or folder, how many of its bytes are fetched or read, and how many there are; None where nobody knows.
FetchProgress = Callable[[str, int, int | None], None]


def silent(*_: object) -> None:
    """Do nothing."""


class Watcher(Protocol):
    """Shows progress in bytes and in pieces."""

    def bytes(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """`label` has `done_bytes`, of `total_bytes` if that is known."""
        ...

    def pieces(self, label: str, done: int, total: int, detail: str = "") -> None:
        """`label` has `done` of `total` pieces; `detail`: a remark for now."""
        ...

    def say(self, text: str) -> None:
        """Shows a side remark."""
        ...


class _Silent:
    bytes = pieces = say = staticmethod(silent)


SILENT: Watcher = _Silent()  # for whoever doesn't listen
