"""The turns of a conversation on one tab. Each is drawn once; later only differences are."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Any

from ingle.core.message import ImagePart
from ingle.home.turns import Turn
from ingle.page.acts import buttons
from ingle.page.conversation import OpenConversation, SaidTurn
from ingle.page.facts import details, line, seen
from ingle.page.markdown import Stroke, render
from ingle.page.page_layout import PageParts
from ingle.page.parts import TurnPart
from ingle.page.pending_answers import PendingAnswer, PendingAnswers
from ingle.page.taught import TaughtNotes
from ingle.page.troubles import trouble
from ingle.serve.convert import data_url

# Handler of a turn's event; takes the event, the turn, and the event's argument.
HearTurn = Callable[[str, Turn | None, Any], Awaitable[None]]
LookUp = Callable[[Sequence[Turn]], TaughtNotes]  # finds what was taught about turns; reads the database


class Thread:
    """The turns in the middle of one tab, and the pending answer at their end."""

    SPAN = 80  # turns that are shown at first, and that "earlier" adds: a long conversation is slow to draw

    def __init__(self, pending: PendingAnswers, parts: PageParts, hear: HearTurn, look_up: LookUp) -> None:
        self._pending, self._parts, self._hear, self._look_up = pending, parts, hear, look_up
        self._shown: list[tuple[Turn, TurnPart]] = []
        self._end: TurnPart | None = None
        self._ending: PendingAnswer | None = None
        self._ends_at = ""  # the turn that the end follows
        self._watcher: Callable[[str, Sequence[Stroke]], None] | None = None
        self._earlier = 0

    @property
    def leaf(self) -> str:
        """Id of the last turn."""
        return self._shown[-1][0].id if self._shown else ""

    @property
    def pending(self) -> PendingAnswer | None:
        """The pending answer at the end."""
        return self._ending if self._ending is not None and self._ending.running else None

    def show_earlier(self) -> None:
        """Lets the next `draw` show more of a long conversation."""
        self._earlier = self.SPAN

    def edit_last(self) -> None:
        """Lets the user edit the last question."""
        for turn, part in reversed(self._shown):
            if turn.message.role == "user":
                part.do("edit")
                return

    def stored(self, turn: Turn) -> None:
        """Tells a turn's part that its edit or correction is stored."""
        for shown, part in self._shown:
            if shown.id == turn.id:
                part.do("stored")

    def part_of(self, turn: str) -> TurnPart | None:
        """Return the part that shows the turn of that id; None if none does."""
        return next((part for shown, part in self._shown if shown.id == turn), None)

    async def draw(self, conversation: OpenConversation | None, current: Callable[[], bool]) -> None:
        """Shows a conversation, unless it is no longer the `current` one. Raises NotKept if it is gone."""
        whole = await conversation.path() if conversation else ()
        path = self._window(whole)
        same = sum(1 for _ in takewhile(lambda pair: pair[0][0].id == pair[1].turn.id, zip(self._shown, path, strict=False)))
        fresh = [step.turn for step in path[same:]]
        html = await asyncio.to_thread(_render, fresh[1:] if fresh and self._written_here(fresh[0]) else fresh)
        parent = path[-1].turn.id if path else ""
        open_end = conversation is not None and bool(path) and path[-1].turn.message.role == "user"
        before = await conversation.following(parent) if conversation and open_end else ()
        taught = await asyncio.to_thread(self._look_up, [step.turn for step in path]) if path else TaughtNotes()
        if not current():
            return
        self._parts.scroll.show({"earlier": len(whole) > len(path)})
        self._earlier = 0
        self._draw_turns(conversation, path, same, html, taught)
        if open_end:
            await self._draw_end(self._pending_at(conversation, parent), parent, before)
        else:
            self._drop_end()

    def _window(self, whole: Sequence[SaidTurn]) -> Sequence[SaidTurn]:
        """Return the turns to show: the end of the conversation, and those that were shown before."""
        ids = [step.turn.id for step in whole]
        first = self._shown[0][0].id if self._shown else ""
        begin = ids.index(first) if first in ids else len(ids) - self.SPAN
        return whole[max(0, begin - self._earlier) :]

    def _draw_turns(
        self, conversation: OpenConversation | None, path: Sequence[SaidTurn], same: int, html: dict[str, str], taught: TaughtNotes
    ) -> None:
        for _, part in self._shown[same:]:
            part.delete()
        del self._shown[same:]
        for step in path[same:]:
            part = self._adopted(step.turn) or self._new_part(step.turn)
            self._shown.append((step.turn, part))
        for step, (_, part) in zip(path, self._shown, strict=True):
            waits = step.turn.message.role == "assistant" and self._pending_at(conversation, step.turn.parent) is not None
            part.show(_turn_values(step, waits, html, taught))

    def _pending_at(self, conversation: OpenConversation | None, parent: str) -> PendingAnswer | None:
        return None if conversation is None else self._pending.at(conversation.key, parent)

    def _written_here(self, turn: Turn) -> bool:
        """Whether an answer was written on this tab, so that it shows already."""
        return self._end is not None and self._ending is not None and turn.completion == self._ending.ask.id

    def _adopted(self, turn: Turn) -> TurnPart | None:
        """Return the part in which this turn was written; if it was not written here, drop the end."""
        part = self._end
        if part is None or not self._written_here(turn):
            self._drop_end()
            return None
        self._watcher = None  # but it is told on: the turn is stored before the last words are shown
        self._end = self._ending = None
        part.turn = turn
        return part

    def _new_part(self, turn: Turn | None) -> TurnPart:
        with self._parts.column:
            part = TurnPart()
        part.turn = turn
        for event in ("act", "edit", "correct", "step", "cure", "learning", "safety"):

            async def heard(argument: Any, event: str = event) -> None:
                await self._hear(event, part.turn, argument)

            part.hear(event, heard)
        return part

    async def _draw_end(self, pending: PendingAnswer | None, parent: str, before: Sequence[str]) -> None:
        values = {"role": "assistant", "beside": [*before, ""], "place": len(before)}
        # The same end stays the same part: a button that is made anew under a finger is not pressed.
        if self._end is None or self._ending is not pending or self._ends_at != parent:
            self._drop_end()
            self._end = self._new_part(None)
            self._ending, self._ends_at = pending, parent
        end = self._end
        if pending is not None and pending.running:
            if self._watcher is None:
                async with pending.lock:
                    end.show({**values, "state": pending.stage, "html": pending.growing.complete})
                    end.grow(pending.stage, [pending.growing.open])
                    self._watcher = end.grow
                    pending.watch(end.grow)
        else:
            note, cures = trouble(pending)
            self._unwatch()
            end.show({**values, "state": "failed", "note": note, "cures": [{"id": cure.act, "label": cure.label} for cure in cures]})

    def _drop_end(self) -> None:
        self._unwatch()
        if self._end is not None:
            self._end.delete()
        self._end = self._ending = None

    def _unwatch(self) -> None:
        if self._ending is not None and self._watcher in self._ending.watchers:
            self._ending.watchers.remove(self._watcher)
        self._watcher = None


def _render(turns: Sequence[Turn]) -> dict[str, str]:
    """Return the HTML of answers, by the id of the turn. A picture's words are none that anybody wants to read."""
    return {turn.id: render("" if _pictures(turn) else turn.message.text) for turn in turns if turn.message.role == "assistant"}


def _pictures(turn: Turn) -> list[str]:
    """Return a turn's pictures as data: URLs."""
    return [data_url(part) for part in turn.message.parts if isinstance(part, ImagePart)]


def _turn_values(step: SaidTurn, waits: bool, html: dict[str, str], taught: TaughtNotes) -> dict[str, Any]:
    """Return the properties of a turn's part; `waits`: another answer to its question is pending."""
    turn, near = step.turn, taught.nearly(step.turn)
    values: dict[str, Any] = {
        "role": turn.message.role, "text": turn.message.text, "state": "", "note": "", "cures": [],
        "beside": [*step.beside, ""] if waits else list(step.beside), "place": step.place,
        "acts": buttons(turn, taught), "correction": taught.correction(turn), "pictures": _pictures(turn),
        "nearly": near.in_short if near is not None else "",
    }  # fmt: skip
    if turn.id in html:
        values["html"] = html[turn.id]
    if turn.facts is not None:
        values |= {
            "seen": seen(turn.facts, taught.taught_guards(turn)),
            "line": line(turn.facts),
            "details": details(turn.facts, turn.at, taught),
        }
    return values
