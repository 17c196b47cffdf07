"""What can be done with a turn: the buttons under it. A later capability adds an entry here, and with it its button."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.home.turns import Turn

if TYPE_CHECKING:
    from ingle.serve.page_view import View

Deed = Callable[["View", Turn], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """One button."""

    id: str
    label: str
    icon: str
    """One of `static/icons.svg`."""
    deed: Deed | None = None
    """None = the browser does it (`static/turn.js`)."""
    fits: Callable[[Turn], bool] = lambda _: True
    """Whether a turn has this button."""


async def _again(view: "View", turn: Turn) -> None:
    await view.again(turn.parent)


ANSWER_ACTS: Sequence[Act] = (
    Act("copy", "Copy the answer", "copy"),
    Act("again", "Answer again", "again", _again),
    Act("details", "All about this answer", "info", fits=lambda turn: bool(turn.facts)),
)
QUESTION_ACTS: Sequence[Act] = (
    Act("copy", "Copy", "copy"),
    Act("edit", "Edit and ask again", "pencil"),
)


def acts_of(turn: Turn) -> Sequence[Act]:
    """The buttons of a turn."""
    return [act for act in (QUESTION_ACTS if turn.message.role == "user" else ANSWER_ACTS) if act.fits(turn)]
