"""The interface of an open tab, for its panels and buttons."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ingle.home.turns import Turn
from ingle.page.choices import Choices
from ingle.serve.service import Service

Deed = Callable[[Any], Awaitable[None]]  # carries out an event of a part; takes the event's argument


class Tab(Protocol):
    """One open tab, which shows one conversation. `View` implements it."""

    @property
    def owner(self) -> str:
        """Id of the visitor's key; "" on this machine, where none is needed."""

    @property
    def service(self) -> Service:
        """The service that answers; it has the home and its database."""

    @property
    def teaches_guards(self) -> bool:
        """Whether the visitor may teach the guards of the home."""

    @property
    def place(self) -> str:
        """Id of the stored conversation; "" for a new or a temporary one."""

    @property
    def choices(self) -> Choices:
        """Settings of the conversation."""

    async def choose(self, choices: Choices) -> None:
        """Changes the settings and stores them with the conversation."""

    async def again(self, parent: str) -> None:
        """Has the model answer a question once more."""

    async def explain(self, turn: Turn) -> None:
        """Opens the view "Why" under an answer, or closes it."""

    def heard(self, deed: Deed) -> Deed:
        """Wraps a deed: it needs a good key, and its error shows above the composer."""

    async def leave(self, note: str = "") -> None:
        """Goes to a new conversation and shows a note."""

    async def is_watched(self) -> bool:
        """Return whether the tab is still open and its visitor may see it."""

    def say(self, text: str) -> None:
        """Shows a note above the composer."""

    def stale(self) -> None:
        """Redraws the tab soon. Several calls make one redraw."""

    def changed(self, conversation: str = "") -> None:
        """Redraws every tab of this owner."""
