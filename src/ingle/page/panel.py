"""The panel "Settings" of one tab."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ingle.core.errors import RequestError
from ingle.page.choices import Choices, choices_of, home_choices
from ingle.page.models import may_pull
from ingle.page.parts import SettingsPanel
from ingle.page.tab import Deed, Tab


class Panel:
    """Draws the settings of the conversation and changes them."""

    def __init__(self, tab: Tab, part: SettingsPanel) -> None:
        self._tab, self._part = tab, part
        self.deeds: Mapping[str, Deed] = {"change": self.change, "reset": self.reset}

    async def open(self, _argument: Any = None) -> None:
        """Shows the panel."""
        await self.draw()
        self._part.do("open")

    async def draw(self, note: str = "") -> None:
        """Shows the current settings."""
        service = self._tab.service
        names = list(await asyncio.to_thread(service.models.names))
        self._part.show(
            {"models": names, "home": home_choices(service), "chosen": asdict(self._tab.choices), "note": note, "more": may_pull(self._tab)}
        )

    async def change(self, argument: Any) -> None:
        """Changes one setting; `argument`: [name, value]. One at a time, so that two quick changes can't undo each other."""
        name, value = argument
        try:
            choices = choices_of({**asdict(self._tab.choices), name: value})
        except RequestError as error:
            await self.draw(str(error))
        else:
            await self._tab.choose(choices)

    async def reset(self, _argument: Any) -> None:
        """Returns to the home's defaults."""
        await self._tab.choose(Choices())
