"""The panel "Learning" of one tab: examples that are being learned, learned, refused (with reasons) or remembered; and held-out loss.

While it is open, the server looks for changes every two seconds and draws the panel again only if there are any.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import background_tasks

from ingle.adapt.admit import consent, edit, learning_view
from ingle.adapt.forget import Forgotten, forget
from ingle.adapt.undo import redo, undo
from ingle.core.errors import IngleError
from ingle.core.example import Example
from ingle.home.teachings import change_mark
from ingle.learn.learning_settings import lacking
from ingle.page.chart import loss_chart
from ingle.page.choices import home_choices
from ingle.page.parts import LearningPanel
from ingle.page.tab import Deed, Tab
from ingle.page.troubles import said
from ingle.serve.learner import next_room

PAUSE_S = 2.0
_COPIES = "Another program is reading the database, so old copies of the words may stay in its file for a while."
SPAN = 100  # examples that are shown at first, and that "Older" adds


class LearningTab:
    """Draws the panel and carries out its actions."""

    def __init__(self, tab: Tab, part: LearningPanel) -> None:
        self._tab, self._part = tab, part
        self._limit, self._open, self._mark = SPAN, False, ""
        self._watching, self._note = False, ""
        deeds: dict[str, Deed] = {"consent": self.consent, "undo": self.undo, "redo": self.redo, "rewrite": self.rewrite}
        deeds |= {"forget": self.forget, "more": self.more}
        self.deeds: Mapping[str, Deed] = {event: self._guarded(deed) for event, deed in deeds.items()}
        part.hear("shut", self.shut)

    async def open(self, _argument: Any = None) -> None:
        """Shows the panel and keeps it up to date while it is open."""
        self._note = ""
        await self.draw()
        self._part.do("open")
        self._open = True
        if not self._watching:
            self._watching = True
            background_tasks.create(self._watch(), name="watch what is learned")

    async def shut(self, _argument: Any = None) -> None:
        """Stops the updates: the panel was closed."""
        self._open = False

    async def draw(self) -> None:
        """Shows the current state."""
        tab = self._tab
        engine, owner = tab.service.engine, tab.owner
        model = tab.choices.model or str(home_choices(tab.service)["model"])

        def read() -> dict[str, Any]:
            mark = change_mark(engine, owner)
            view = learning_view(engine, owner, self._limit)
            items = [_item(one) for one in view.items]
            chart = loss_chart(engine, tab.service.home.keys, owner, model)
            self._mark = mark  # as it was before the reading: what came meanwhile is drawn the next time
            older = sum(view.counts.values()) - len(items)
            room = next_room(tab.service, view.items)
            waits = _waits(view.items) or (room.told if room is not None and room.fits else "")
            return {"waits": waits, "learn": view.learn, "counts": dict(view.counts), "items": items, "older": older, "chart": chart}

        values = await asyncio.to_thread(read)
        self._part.show({**values, "note": self._note or values.pop("waits")})

    async def _watch(self) -> None:
        tab = self._tab
        try:
            while self._open:
                await asyncio.sleep(PAUSE_S)
                if not self._open or not await tab.is_watched():
                    break
                mark = await asyncio.to_thread(change_mark, tab.service.engine, tab.owner)
                if mark != self._mark:
                    await self.draw()
                    tab.stale()  # the corrections under the answers too
        except IngleError as error:
            await asyncio.sleep(0)
            tab.say(said(error))
        finally:
            self._watching = False

    # Actions

    def _guarded(self, deed: Deed) -> Deed:
        """Wraps a deed so that its error shows in the panel, which covers the usual place above the composer."""

        async def run(argument: Any) -> None:
            self._note = ""
            try:
                await deed(argument)
            except IngleError as error:
                self._note = said(error)
            await self.draw()
            self._tab.changed()

        return run

    async def consent(self, argument: Any) -> None:
        """Sets whether the weights may learn from what is taught from now on."""
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(consent, service.engine, owner, bool(argument), service.record)

    async def undo(self, argument: Any) -> None:
        """Undoes what was learned or remembered."""
        await undo_example(self._tab, str(argument))

    async def redo(self, argument: Any) -> None:
        """Lets an undone example count again."""
        await redo_example(self._tab, str(argument))

    async def rewrite(self, argument: Any) -> None:
        """Changes the words of a correction or a fact; `argument`: [id, words]."""
        id_, words = map(str, argument)
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(edit, service.home, service.engine, owner, id_, words, service.record)
        service.chooser.forget()
        self._part.do("rewritten")

    async def forget(self, argument: Any) -> None:
        """Forgets an example; `argument`: [id, whether to delete the messages with its words too]."""
        id_, turns_too = str(argument[0]), bool(argument[1])
        self._note = _account(await forget_example(self._tab, id_, turns_too))

    async def more(self, _argument: Any) -> None:
        """Shows older examples too."""
        self._limit += SPAN


async def undo_example(tab: Tab, id_: str) -> None:
    """Undo an example of the visitor, or all of a lesson, by its digest. Raises NotKept."""
    service, owner = tab.service, tab.owner
    await asyncio.to_thread(undo, service.home, service.engine, owner, id_, service.record)
    service.chooser.forget()


async def redo_example(tab: Tab, id_: str) -> None:
    """Let an undone example of the visitor count again. Raises NotKept."""
    service, owner = tab.service, tab.owner
    await asyncio.to_thread(redo, service.home, service.engine, owner, id_, service.record)


async def forget_example(tab: Tab, id_: str, turns_too: bool = False) -> Forgotten:
    """Forget an example of the visitor and all that was made of it. Raises NotKept, HomeError."""
    service, owner = tab.service, tab.owner
    gone = await asyncio.to_thread(forget, service.home, service.engine, owner, id_, service.record, turns_too, service.forget)
    service.chooser.forget()
    return gone


def _account(gone: Forgotten) -> str:
    """Say where the words still are, and which examples count again or no more."""
    places = ((len(gone.turns), "{} of your messages"), (len(gone.prompts), "the system prompt of {} of your conversations"))
    where = " and in ".join(text.format(count) for count, text in places if count)
    left = f"Forgotten. Its words are still in {where}. You can delete them there." if where else ""
    back = "An earlier answer to its question counts again." if gone.back else ""
    leaning = f"{len(gone.leaning)} that built on it no longer count." if gone.leaning else ""
    return " ".join(part for part in (left, back, leaning, "" if gone.scrubbed else _COPIES) if part)


def _waits(items: Sequence[Example]) -> str:
    """Say why pending examples are not learned; "" if they are."""
    pending = {one.kind for one in items if one.state == "pending" and one.learn and one.kind != "fact"}
    return next((why for kind in pending if (why := lacking(kind))), "")


def _item(one: Example) -> dict[str, Any]:
    """Return an example as the panel shows it."""
    return {
        "id": one.id, "kind": one.kind, "question": one.question, "answer": one.answer, "rating": one.rating, "state": one.state,
        "reasons": list(one.reasons), "at": one.at, "model": one.model,
    }  # fmt: skip
