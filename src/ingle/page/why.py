"""The view "Why" of one tab: what an answer rests on, proved by leaving it out, under the answer itself.

An explanation costs as much as many answers, so none begins by itself. At most one is open, and made, on a tab; closing it, leaving the
conversation or the tab ends it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.app.explained import explanation_id
from ingle.app.replay import request_of
from ingle.core.errors import IngleError, NotKept, RequestError
from ingle.explain.cause import AnswerSpan
from ingle.explain.why import WhyOptions
from ingle.home.example_states import COUNTING
from ingle.home.explanations import get_explanation
from ingle.home.lessons import list_lessons
from ingle.home.teachings import examples_called
from ingle.ledger.chain import Ledger
from ingle.page.learning import redo_example, undo_example
from ingle.page.parts import TurnPart, WhyPart
from ingle.page.tab import Tab
from ingle.page.troubles import said
from ingle.page.why_text import TaughtNow, account_line, cause_row, legend, proved_cause, why_values
from ingle.serve.explain import explanation
from ingle.serve.schema import EXPLAINED, ExplainBody

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.turns import Turn

WHAT = [*EXPLAINED]  # parts of an explanation that the page asks for
BUDGET_S = 60.0  # most seconds of an explanation
_NEWEST = 500  # newest facts of explanations among which a kept one's is looked for
_CUT = "A guard changed what comes after this, so only the beginning is explained."
Span = tuple[int, int] | None


@dataclass(eq=False)
class OpenWhy:
    """The explanation that is open."""

    turn: "Turn"
    turn_part: TurnPart
    part: WhyPart
    span: Span = None  # the part of the answer that it is about, in characters; None = all of it
    table: Mapping[str, Any] | None = None  # the whole explanation, when it is there
    took: Mapping[str, Any] | None = None
    task: asyncio.Task[None] | None = None


class WhyTab:
    """Opens and closes the view and carries out its actions."""

    def __init__(self, tab: Tab, part_of: Callable[[str], TurnPart | None]) -> None:
        """`part_of`: returns the part that shows the turn of that id."""
        self._tab, self._part_of = tab, part_of
        self._open: OpenWhy | None = None

    async def toggle(self, turn: "Turn") -> None:
        """Opens the view under an answer; closes it if it is open there."""
        was = self._open
        self.close()
        turn_part = self._part_of(turn.id)
        if turn_part is None or (was is not None and was.turn.id == turn.id):
            return
        with turn_part:
            part = WhyPart()
        opened = self._open = OpenWhy(turn, turn_part, part)
        deeds = {"stop": self._stop, "anew": self._anew, "choose": self._choose, "undo": self._undo, "redo": self._redo}
        for event, deed in deeds.items():
            part.hear(event, self._tab.heard(deed))
        turn_part.show({"explained": True})
        part.show({"legend": legend(), "state": "working"})
        await self._show(opened)

    def close(self) -> None:
        """Closes the view and ends what is being explained."""
        opened, self._open = self._open, None
        if opened is None:
            return
        self._end(opened)
        if not opened.part.is_deleted:
            opened.turn_part.show({"explained": False})
            opened.part.delete()

    def tidy(self) -> None:
        """Ends what is being explained if its answer is not shown any more."""
        if self._open is not None and self._open.part.is_deleted:
            self.close()

    def left(self) -> None:
        """Ends what is being explained: the tab was left. What is shown stays, for a tab that comes back."""
        if self._open is not None:
            self._halt(self._open)

    # Explaining

    async def _show(self, opened: OpenWhy) -> None:
        """Shows the explanation that was kept, or makes one."""
        self._end(opened)
        kept = await asyncio.to_thread(self._kept, opened)
        if self._open is not opened:
            return
        if kept is None:
            self._begin(opened)
        else:
            opened.table, opened.took = kept
            await self._draw(opened)

    def _begin(self, opened: OpenWhy) -> None:
        self._end(opened)
        opened.table = None
        opened.part.show({"state": "working", "note": "", "says": [], "causes": [], "prompt": [], "line": "", "kept": False, "sure": None})
        opened.task = asyncio.create_task(self._explain(opened), name="explanation of the page")

    async def _explain(self, opened: OpenWhy) -> None:
        turn, causes = opened.turn, list[dict[str, Any]]()
        try:
            part = None if opened.span is None else list(opened.span)
            body = ExplainBody(completion_id=turn.completion, what=WHAT, span=part, budget_s=BUDGET_S)
            async with aclosing(explanation(self._tab.service, self._tab.owner, body)) as tables:
                async for table in tables:
                    if table["object"] == "explanation":
                        opened.table, opened.took = table, table.get("ingle", {})
                    else:
                        causes.append(cause_row(proved_cause(table), {}))
                        opened.part.show({"causes": list(causes)})
            await self._draw(opened)
        except IngleError as error:
            opened.part.show({"state": "failed", "note": said(error)})
        except Exception:
            logging.getLogger("ingle").exception("page")
            opened.part.show({"state": "failed", "note": "This is a bug in Ingle. The server's log says more."})

    async def _draw(self, opened: OpenWhy) -> None:
        table, took = opened.table, opened.took or {}
        if table is None:
            return
        service, owner = self._tab.service, self._tab.owner

        def read() -> dict[str, Any]:
            taught = taught_now(service.engine, owner, [one["cause"] for one in table["causes"]])
            return why_values(table, request_of(service.engine, opened.turn), taught)

        values = await asyncio.to_thread(read)
        if not opened.part.is_deleted:
            kept = "ingle" not in table
            cut = _CUT if opened.turn.message.text.strip() != str(table["answer"]).strip() else ""
            opened.part.show({**values, "state": "", "note": "", "cut": cut, "line": account_line(table, took), "kept": kept})

    def _kept(self, opened: OpenWhy) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return a kept explanation and what it took, as the ledger says; None if there is none."""
        service, turn = self._tab.service, opened.turn
        asked = WhyOptions(None if opened.span is None else AnswerSpan(*opened.span))
        id_ = explanation_id(turn.owner, turn.completion, asked, WHAT)
        try:
            table = get_explanation(service.engine, self._tab.owner, id_)
        except NotKept:
            return None
        rows = Ledger(service.engine, service.home.keys).read("explain", last=_NEWEST)
        row = next((row for row in rows if row.values.get("explanation") == id_), None)
        return table, {} if row is None else {**row.values, "event": row.seq}

    def _end(self, opened: OpenWhy) -> None:
        if opened.task is not None:
            opened.task.cancel()
            opened.task = None

    def _halt(self, opened: OpenWhy) -> None:
        if opened.task is not None and not opened.task.done():
            self._end(opened)
            if not opened.part.is_deleted:
                opened.part.show({"state": "failed", "note": "Stopped before it was explained."})

    # Actions

    async def _stop(self, _argument: Any) -> None:
        if self._open is not None:
            self._halt(self._open)

    async def _anew(self, _argument: Any) -> None:
        if self._open is not None:
            self._begin(self._open)

    async def _choose(self, argument: Any) -> None:
        """Explains a part of the answer; `argument`: its start and end, or nothing for the whole answer."""
        opened = self._open
        if opened is None:
            return
        opened.span = None if not argument else _span(argument)
        opened.part.show({"part": None if opened.span is None else list(opened.span)})
        await self._show(opened)

    async def _undo(self, argument: Any) -> None:
        await undo_example(self._tab, str(argument))
        await self._changed()

    async def _redo(self, argument: Any) -> None:
        await redo_example(self._tab, str(argument))
        await self._changed()

    async def _changed(self) -> None:
        if self._open is not None:
            await self._draw(self._open)
        self._tab.changed()


def taught_now(engine: "Engine", owner: str, causes: Sequence[Mapping[str, Any]]) -> dict[str, TaughtNow]:
    """Return what became of the memories and lessons among causes, by their ids."""
    memories = [one["id"] for one in causes if one["kind"] == "memory"]
    digests = [one["id"] for one in causes if one["kind"] == "lesson"]
    lessons = {one.digest: one for one in list_lessons(engine, owner)} if digests else {}
    held = {digest: lessons[digest].examples if digest in lessons else () for digest in digests}
    examples = {one.id: one for one in examples_called(engine, owner, {*memories, *(id_ for ids in held.values() for id_ in ids)})}

    def now(ids: Sequence[str]) -> TaughtNow:
        states = {examples[id_].state for id_ in ids if id_ in examples}
        if states & set(COUNTING):
            return TaughtNow(act="undo")
        [state] = states if len(states) == 1 else ("gone",)
        return TaughtNow(state, "redo" if state == "undone" and len(ids) == 1 else "")

    return {id_: now([id_]) for id_ in memories} | {digest: now(ids) for digest, ids in held.items()}


def _span(argument: Any) -> tuple[int, int]:
    """Return a part of an answer as a browser sent it. Raises RequestError."""
    try:
        start, end = map(int, argument)
    except (TypeError, ValueError):
        raise RequestError("span", "must be two numbers") from None
    return start, end
