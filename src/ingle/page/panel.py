"""The panel "Settings" of one tab."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ingle.core.errors import RequestError
from ingle.page.choices import Choices, choices_of, home_choices
from ingle.page.models import may_pull
from ingle.page.parts import SettingsPanel
from ingle.page.safety_section import SafetySection
from ingle.page.tab import Deed, Tab
from ingle.page.troubles import said


class Panel:
    """Draws the settings of the conversation and changes them."""

    def __init__(self, tab: Tab, part: SettingsPanel, safety: SafetySection) -> None:
        self._tab, self._part, self._safety = tab, part, safety
        self.deeds: Mapping[str, Deed] = {"change": self.change, "reset": self.reset}

    async def open(self, _argument: Any = None) -> None:
        """Shows the panel."""
        await self._open("")

    async def open_safety(self, _argument: Any = None) -> None:
        """Shows the panel at its section "Safety"."""
        await self._open("safety")

    async def _open(self, section: str) -> None:
        await self.draw()
        await self._safety.draw()
        self._part.do("open", section)

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
            await self.draw(said(error))
        else:
            await self._tab.choose(choices)

    async def reset(self, _argument: Any) -> None:
        """Returns to the home's defaults."""
        await self._tab.choose(Choices())
