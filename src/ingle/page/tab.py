"""What the panels and buttons of the page know of the open tab that they belong to."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ingle.page.choices import Choices
from ingle.serve.service import Service

Deed = Callable[[Any], Awaitable[None]]
"""Does what a part of the page asks for. It is given what the part says."""


class Tab(Protocol):
    """One open tab, which shows one conversation; `View` is one."""

    @property
    def owner(self) -> str:
        """Id of the visitor's key; "" for somebody on this machine who needs none."""

    @property
    def service(self) -> Service:
        """Answers, and has the home and its database."""

    @property
    def place(self) -> str:
        """Id of the conversation in the home; "" for a new one, or one that is not kept."""

    @property
    def choices(self) -> Choices:
        """Settings of the conversation."""

    async def choose(self, choices: Choices) -> None:
        """Takes over other settings, and keeps them with the conversation."""

    async def again(self, parent: str) -> None:
        """Lets the model answer a question once more."""

    async def leave(self, note: str = "") -> None:
        """Goes to a new conversation, and says why."""

    async def is_watched(self) -> bool:
        """Tells whether the tab is open still, and its visitor may see it."""

    def say(self, text: str) -> None:
        """Shows one quiet line above the composer."""

    def stale(self) -> None:
        """Draws everything again, soon; once, however often it is asked for."""

    def changed(self, conversation: str = "") -> None:
        """Lets every tab of this owner draw what is different now."""
