"""The panel "Models" of one tab: known models with what they need and how fast they would be here; pulling one, and using it.

While it is open, it is drawn again every second if something changed. Only the owner of this machine has it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from nicegui import background_tasks

from ingle.core.errors import IngleError, NoRight
from ingle.engine.bandwidth import ModelOffer, larger_offer, read_bandwidth
from ingle.home.kept import get_kept
from ingle.page.choices import home_choices
from ingle.page.parts import ModelsPanel
from ingle.page.tab import Deed, Tab
from ingle.page.troubles import said

PAUSE_S = 1.0
SOON_S = 3.0  # seconds after the page was opened before the machine is measured for the offer of a larger model, once in a home's life
SMALL = "smollm2"  # the model beside which a larger one is offered


def may_pull(tab: Tab) -> bool:
    """Return whether the tab's user is the owner, at a server that takes more models."""
    return not tab.owner and not tab.service.models.only


class ModelsTab:
    """Draws the panel and carries out its actions."""

    def __init__(self, tab: Tab, part: ModelsPanel) -> None:
        self._tab, self._part = tab, part
        self._open = self._watching = False
        self._note, self._shown = "", dict[str, Any]()
        self.deeds: Mapping[str, Deed] = {name: self._guarded(deed) for name, deed in (("pull", self.pull), ("use", self.use))}
        self.deeds = {**self.deeds, "stop": self._guarded(self.stop), "shut": self.shut}

    async def open(self, _argument: Any = None) -> None:
        """Shows the panel and keeps it up to date while it is open."""
        self._may()
        self._note = ""
        self._tab.service.puller.measure()
        await self.draw()
        self._part.do("open")
        self._open = True
        if not self._watching:
            self._watching = True
            background_tasks.create(self._watch(), name="watch a pull")

    async def shut(self, _argument: Any = None) -> None:
        """Stops the updates: the panel was closed. A pull goes on."""
        self._open = False

    async def draw(self) -> None:
        """Shows the current state."""
        service = self._tab.service
        model = self._tab.choices.model or str(home_choices(service)["model"])
        rows = [asdict(one) for one in await service.puller.offers()]
        pull = service.puller.state.table() | {"note": said(service.puller.state.note)}
        self._shown = {"models": rows, "current": model, "pull": pull, "measuring": service.puller.measuring}
        self._part.show({**self._shown, "note": self._note})

    async def offer(self) -> dict[str, Any] | None:
        """Return the larger model to offer at the start of a conversation, where the default is the small one; None = none.

        Its name is "" while the machine is being measured. `guess`: whether its speed is one, since other programs were at work meanwhile.
        """
        if not may_pull(self._tab) or home_choices(self._tab.service)["model"] != SMALL:
            return None
        offered = await asyncio.to_thread(self._tab.service.models.offered)
        if len({kept.base for kept in offered}) > 1:  # whoever has another model is left alone
            return None
        puller = self._tab.service.puller
        puller.measure(SOON_S)
        measured = await asyncio.to_thread(read_bandwidth, self._tab.service.home)
        if measured is None:
            return {"name": ""} if puller.will_measure else None
        found: ModelOffer | None = larger_offer(await puller.offers(), SMALL)
        if found is None:
            return None
        return asdict(found) | {"guess": measured.provisional}

    async def pull(self, argument: Any) -> None:
        """Begins to pull a model; `argument`: its `name` in the catalogue, and `lean` (null = as the home's settings say)."""
        asked = argument if isinstance(argument, Mapping) else {}
        lean = asked.get("lean")
        await self._tab.service.puller.start(str(asked.get("name")), lean=lean if isinstance(lean, bool) else None)

    async def stop(self, _argument: Any) -> None:
        """Stops the pull."""
        await self._tab.service.puller.stop()

    async def use(self, argument: Any) -> None:
        """Has the conversation go on with a kept model; `argument`: its name in this home."""
        tab = self._tab
        kept = await asyncio.to_thread(get_kept, tab.service.home, str(argument))
        await tab.choose(replace(tab.choices, model=kept.name))
        tab.stale()

    def _may(self) -> None:
        if not may_pull(self._tab):
            raise NoRight("models", "Only the owner of this machine pulls models, at a server that offers all of them")

    def _guarded(self, deed: Deed) -> Deed:
        """Wraps a deed: it is the owner's, and its error shows in the panel."""

        async def run(argument: Any) -> None:
            self._note = ""
            try:
                self._may()
                await deed(argument)
            except IngleError as error:
                self._note = said(error)
            await self.draw()

        return run

    async def _watch(self) -> None:
        tab = self._tab
        try:
            while self._open:
                await asyncio.sleep(PAUSE_S)
                if not self._open or not await tab.is_watched():
                    break
                await self.draw()
        except IngleError as error:
            tab.say(said(error))
        finally:
            self._watching = False
