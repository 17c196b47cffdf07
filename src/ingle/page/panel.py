"""The settings of the conversation on one tab."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ingle.core.errors import RequestError
from ingle.home import conversations
from ingle.page.choices import Choices, choices_of, home_choices

if TYPE_CHECKING:
    from ingle.page.view import View


class Panel:
    """What can be chosen, and what is."""

    def __init__(self, view: "View") -> None:
        self._view = view
        view.parts.settings.hear("change", view.heard(self.change))
        view.parts.settings.hear("reset", view.heard(self.reset))

    async def open(self, _said: Any = None) -> None:
        """Shows the panel."""
        await self.draw()
        self._view.parts.settings.do("open")

    async def draw(self, note: str = "") -> None:
        """Shows what is chosen now."""
        view, service = self._view, self._view.room.service
        names = list(await asyncio.to_thread(service.shelf.names))
        values = {"models": names, "home": home_choices(service), "chosen": asdict(view.choices), "note": note}
        view.parts.settings.show(values)

    async def change(self, said: Any) -> None:
        """Another choice, as [its name, what is chosen]. Only one at a time, so that two quick ones can't undo each other."""
        name, value = said
        try:
            choices = choices_of({**asdict(self._view.choices), name: value})
        except RequestError as error:
            await self.draw(str(error))
        else:
            await self._choose(choices)

    async def reset(self, _said: Any) -> None:
        """Everything as the home has it."""
        await self._choose(Choices())

    async def _choose(self, choices: Choices) -> None:
        """Takes over choices, and keeps them with the conversation."""
        view = self._view
        view.choices = choices
        if view.place:
            engine, owner = view.room.service.engine, view.visitor.owner
            await asyncio.to_thread(conversations.change_settings, engine, owner, view.place, choices.kept)
        for other in view.room.beside(view):
            other.choices = choices
            await other.panel.draw()
            other.stale()
        await self.draw()
