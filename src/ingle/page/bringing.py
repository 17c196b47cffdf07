"""The line above the message box about what this home could get: offered where it is first wanted, with how far it is, and what came.

That is an ability (see, draw, hear, speak) or a better model. Only the owner of this machine gets something; others hear what is missing.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nicegui import background_tasks

from ingle.core.errors import IngleError, NoRight, size
from ingle.core.message import ImagePart, Message
from ingle.media.painter import asks_to_paint
from ingle.page.choices import home_choices
from ingle.page.models import PAUSE_S, may_pull
from ingle.page.parts import Composer
from ingle.page.tab import Deed, Tab
from ingle.page.troubles import said
from ingle.serve.abilities import Ability, Lack, lacks
from ingle.serve.pulling import PullState

_NOT_YOURS = "Whoever keeps this house can bring that."
_COMES_WITH_IT = "comes with Ingle"


@dataclass(frozen=True, slots=True)
class ToBring:
    """A thing that this home could get, and the sentences about it."""

    name: str  # the name that is pulled
    offer: str  # the sentence that offers it
    came: str  # the sentence when it is here
    model: bool = False  # whether it is a model, which the conversation may go on with


class Bringing:
    """Draws the line and carries out its actions."""

    def __init__(self, tab: Tab, part: Composer) -> None:
        self._tab, self._part = tab, part
        self._wanted: ToBring | None = None
        self._watching = False
        self._drawn: tuple[object, ...] = ()  # the model and the pull for which the message box was told what is missing
        self.deeds: Mapping[str, Deed] = {
            "want": self.want, "bring": self.bring, "leave": self.leave, "halt": self.halt, "go_on": self.go_on,
        }  # fmt: skip

    async def draw(self) -> None:
        """Tells the message box what is missing; what can't be had is grey there. Looks again when the model or the pull has changed."""
        pull = self._tab.service.puller.state
        now = (self._model, pull.name, pull.state)
        if now == self._drawn:
            return
        self._drawn = now
        found = await self._lacks()
        may = may_pull(self._tab)
        self._part.show({"lacks": {name: lack.why or ("" if may else _refusal(lack.ability)) for name, lack in found.items()}})

    async def want(self, argument: Any) -> None:
        """Offers what brings an ability, if it is missing; `argument`: its name."""
        if not await self.lacks(str(argument)):  # it came by another way: the next press uses it
            self._drawn = ()

    async def lacks(self, ability: str) -> bool:
        """Return whether an ability is missing; if it is, what brings it is offered."""
        lack = (await self._lacks()).get(ability)
        if lack is None:
            return False
        if lack.why or not may_pull(self._tab):
            self._wanted = None
            self._part.show({"offer": {"text": lack.why or _refusal(lack.ability), "state": "none"}})
            return True
        self.offer(_wanted(lack.ability))
        return True

    async def holds(self, message: Message) -> bool:
        """Return whether a message stays in its box, since nothing can see its pictures. What would draw the one it asks for is offered."""
        if asks_to_paint(message.text):
            await self.lacks("draw")
        held = any(isinstance(part, ImagePart) for part in message.parts) and await self.lacks("see")
        if held:
            self._part.do("refused")
        return held

    def offer(self, wanted: ToBring) -> None:
        """Shows the offer of something, or how far it is."""
        self._wanted, pull = wanted, self._tab.service.puller.state
        if (pull.name, pull.state) == (wanted.name, "running"):
            self._show()
            self._watch()
        else:
            self._part.show({"offer": {"text": wanted.offer, "state": "offered"}})

    async def better(self, argument: Any) -> None:
        """Gets the better model that was offered at the start; `argument`: its `name` and `title`. One goes on meanwhile."""
        self._may()
        name, title = (str(argument.get(key)) for key in ("name", "title")) if isinstance(argument, Mapping) else ("", "")
        self.offer(ToBring(name, f"{title} answers better.", f"{title} is here.", model=True))
        await self.bring()

    async def bring(self, _argument: Any = None) -> None:
        """Begins to get what was offered."""
        self._may()
        if self._wanted is not None:
            await self._tab.service.puller.start(self._wanted.name)
            self._show()
            self._watch()

    async def halt(self, _argument: Any) -> None:
        """Stops getting it."""
        self._may()
        await self._tab.service.puller.stop()

    async def leave(self, _argument: Any) -> None:
        """Takes the line away. What is being brought goes on."""
        self._wanted = None
        self._part.show({"offer": None})

    async def go_on(self, _argument: Any) -> None:
        """Has this conversation go on with the model that came, and those to come begin with it."""
        self._may()
        tab, pull = self._tab, self._tab.service.puller.state
        if self._wanted is not None and self._wanted.model and pull.name == self._wanted.name and pull.kept:
            await asyncio.to_thread(tab.service.models.make_default, pull.kept)
            await tab.choose(replace(tab.choices, model=None))
            await self.leave(None)
            tab.say(f"{pull.kept} answers from now on. What you taught holds for it, too.")

    def _may(self) -> None:
        if not may_pull(self._tab):
            raise NoRight("model", "Only the owner of this machine gets something for it")

    @property
    def _model(self) -> str:
        return self._tab.choices.model or str(home_choices(self._tab.service)["model"])

    async def _lacks(self) -> dict[str, Lack]:
        service, model = self._tab.service, self._model
        try:
            return await asyncio.to_thread(lambda: lacks(service.home, service.models.kept(model)))
        except IngleError:  # a model that is gone: whoever asks it hears of that
            return {}

    def _show(self) -> None:
        wanted, state = self._wanted, self._tab.service.puller.state
        if wanted is None:
            return
        if state.name != wanted.name or state.state == "none":
            self._part.show({"offer": {"text": wanted.offer, "state": "offered"}})
        elif state.state == "running":
            shown = {"text": doing(state), "state": "running", "done": state.done, "total": state.total}
            self._part.show({"offer": shown})
        elif state.state == "done":
            self._part.show({"offer": {"text": wanted.came, "state": "came" if wanted.model else "done"}})
        else:
            self._part.show({"offer": {"text": said(state.note), "state": "offered"}})

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            background_tasks.create(self._follow(), name="watch what is brought")

    async def _follow(self) -> None:
        tab = self._tab
        try:
            while self._wanted is not None and tab.service.puller.state.state == "running" and await tab.is_watched():
                self._show()
                await asyncio.sleep(PAUSE_S)
            self._show()
        finally:
            self._watching = False
        tab.stale()


def doing(state: PullState) -> str:
    """How far a pull is, with the time left."""
    amount = "" if not state.total else f": {state.done} of {state.total}"
    if state.total and state.unit == "bytes":
        amount = f": {size(state.done)} of {size(state.total)}"
    left = state.seconds_left
    time = "" if left is None else f", about {left:.0f} s left" if left < 90 else f", about {left / 60:.0f} minutes left"
    return f"{state.label}{amount}{time}"


def _wanted(ability: Ability) -> ToBring:
    amount = f"gets {size(ability.nbytes)} from your package index, once" if ability.nbytes else _COMES_WITH_IT
    offer = f"Ingle can't {ability.does} yet. What it takes {amount}."
    return ToBring(ability.wants, offer, f"Ingle can {ability.does} now.")


def _refusal(ability: Ability) -> str:
    return f"Ingle can't {ability.does} here yet. {_NOT_YOURS}"
