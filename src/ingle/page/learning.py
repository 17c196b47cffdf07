"""The panel "Learning" on one tab: what is being learned, what was, what was refused and why, what is remembered, and held-out loss.

While it is open, the server looks every two seconds whether anything is different, and only then draws it again.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from nicegui import background_tasks

from ingle.adapt.admit import consent, edit, learning_view
from ingle.adapt.forget import Forgotten, forget
from ingle.adapt.undo import redo, undo
from ingle.core.errors import IngleError
from ingle.core.example import Example
from ingle.home.teachings import change_mark
from ingle.learn.settings import why_not
from ingle.page.chart import loss_chart
from ingle.page.choices import home_choices
from ingle.page.parts import LearningPanel
from ingle.page.tab import Deed, Tab

PAUSE_S = 2.0
_COPIES = "Another program is reading the database, so old copies of the words may stay in its file for a while."
SPAN = 100
"""Examples that are shown at first, and more at a time."""


class Learning:
    """What is shown of it, and what can be done."""

    def __init__(self, tab: Tab, part: LearningPanel) -> None:
        self._tab, self._part = tab, part
        self._limit, self._open, self._mark = SPAN, False, ""
        self._watching, self._said = False, ""
        deeds: dict[str, Deed] = {"consent": self.consent, "undo": self.undo, "redo": self.redo, "rewrite": self.rewrite}
        deeds |= {"forget": self.forget, "more": self.more}
        self.deeds: Mapping[str, Deed] = {event: self._told(deed) for event, deed in deeds.items()}
        part.hear("shut", self.shut)

    async def open(self, _said: Any = None) -> None:
        """Shows the panel, and keeps it true for as long as it is open."""
        self._said = ""
        await self.draw()
        self._part.do("open")
        self._open = True
        if not self._watching:
            self._watching = True
            background_tasks.create(self._watch(), name="watch what is learned")

    async def shut(self, _said: Any = None) -> None:
        """Nobody looks any more."""
        self._open = False

    async def draw(self) -> None:
        """Shows everything as it is now."""
        tab = self._tab
        engine, owner = tab.service.engine, tab.owner
        model = tab.choices.model or str(home_choices(tab.service)["model"])

        def read() -> dict[str, Any]:
            mark = change_mark(engine, owner)
            found = learning_view(engine, owner, self._limit)
            items = [_item(one) for one in found.items]
            chart = loss_chart(engine, tab.service.home.keys, owner, model)
            self._mark = mark  # as it was before the reading: what came meanwhile is drawn the next time
            older = sum(found.counts.values()) - len(items)
            return {"learn": found.learn, "counts": dict(found.counts), "items": items, "older": older, "chart": chart}

        shown = await asyncio.to_thread(read)
        self._part.show({**shown, "note": self._said or _waits(shown["counts"])})

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
                    tab.stale()  # what stands under the answers too
        except IngleError as error:
            await asyncio.sleep(0)
            tab.say(str(error))
        finally:
            self._watching = False

    # What can be done

    def _told(self, deed: Deed) -> Deed:
        """A deed; what can't be done is said in the panel, which hides the place where it would be said else."""

        async def run(said: Any) -> None:
            self._said = ""
            try:
                await deed(said)
            except IngleError as error:
                self._said = str(error)
            await self.draw()
            self._tab.changed()

        return run

    async def consent(self, said: Any) -> None:
        """Whether the weights may learn from what is taught from now on."""
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(consent, service.engine, owner, bool(said), service.record)

    async def undo(self, said: Any) -> None:
        """Takes back what was learned from an example."""
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(undo, service.home, service.engine, owner, str(said), service.record)
        service.let_lessons_go()

    async def redo(self, said: Any) -> None:
        """Lets it count again."""
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(redo, service.home, service.engine, owner, str(said), service.record)

    async def rewrite(self, said: Any) -> None:
        """Other words in the place of an answer, or a fact, as [id, words]."""
        id_, words = map(str, said)
        service, owner = self._tab.service, self._tab.owner
        await asyncio.to_thread(edit, service.home, service.engine, owner, id_, words, service.record)
        service.let_lessons_go()
        self._part.do("rewritten")

    async def forget(self, said: Any) -> None:
        """Forgets an example, as [id, whether the messages that hold its words go too]."""
        id_, turns_too = str(said[0]), bool(said[1])
        self._said = _account(await forget_example(self._tab, id_, turns_too))

    async def more(self, _said: Any) -> None:
        """Older examples too."""
        self._limit += SPAN


async def forget_example(tab: Tab, id_: str, turns_too: bool = False) -> Forgotten:
    """Forgets an example of the visitor's, and what was made of it. Raises NotKept, HomeError."""
    service, owner = tab.service, tab.owner
    gone = await asyncio.to_thread(forget, service.home, service.engine, owner, id_, service.record, turns_too, service.forget)
    service.let_lessons_go()
    return gone


def _account(gone: Forgotten) -> str:
    """What did not go, and what counts again or no more."""
    found = ((len(gone.turns), "{} of your messages"), (len(gone.prompts), "the system prompt of {} of your conversations"))
    where = " and in ".join(text.format(count) for count, text in found if count)
    left = f"Forgotten. Its words still stand in {where}, which are yours to delete." if where else ""
    back = "An earlier answer to its question counts again." if gone.back else ""
    leaning = f"{len(gone.leaning)} that leaned on it count no more." if gone.leaning else ""
    return " ".join(part for part in (left, back, leaning, "" if gone.scrubbed else _COPIES) if part)


def _waits(counts: Mapping[str, int]) -> str:
    """Why nothing comes of what is pending, once for all of it."""
    return why_not() if counts.get("pending") else ""


def _item(one: Example) -> dict[str, Any]:
    """An example, as the panel shows it."""
    return {
        "id": one.id, "kind": one.kind, "question": one.question, "answer": one.answer, "rating": one.rating, "state": one.state,
        "reasons": list(one.reasons), "at": one.at, "model": one.model,
    }  # fmt: skip
