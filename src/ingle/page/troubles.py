"""What the page says when there is no answer, in the place where the answer would stand, and what can be done about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ingle.core.errors import Busy, Closing, ContextError, IngleError, NotKept
from ingle.page.pending_answers import PendingAnswer


@dataclass(frozen=True, slots=True)
class Cure:
    """A button."""

    act: str
    """What `View.cure` does."""
    label: str


_AGAIN = Cure("again", "Try again")
_NEW = Cure("new", "New conversation")
_SETTINGS = Cure("settings", "Open the settings")

_TABLE: Sequence[tuple[type[Exception], str, tuple[Cure, ...]]] = (
    (Closing, "The server is being stopped. Your question is kept; ask it again when the server is back.", (_AGAIN,)),
    (Busy, "Too much is being asked at once just now.", (_AGAIN,)),
    (ContextError, "This conversation has become too long for the model.", (_NEW, _SETTINGS)),
    (NotKept, "The model can't answer.", (_SETTINGS, _AGAIN)),
    (IngleError, "There is no answer.", (_AGAIN,)),
)
"""The first that fits counts."""


def trouble(pending: PendingAnswer | None) -> tuple[str, Sequence[Cure]]:
    """What is said of a question without an answer; None = nobody knows why (the server was stopped in the middle)."""
    if pending is None:
        return "This question has no answer yet.", (_AGAIN,)
    if pending.error is None:
        return "Stopped before the answer began.", (_AGAIN,)
    for kind, said, cures in _TABLE:
        if isinstance(pending.error, kind):
            return (said if isinstance(pending.error, Closing) else f"{said} {pending.error}"), cures
    return "This is a bug of Ingle; the server's log has more.", (_AGAIN,)
