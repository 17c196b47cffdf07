"""`/v1/explain`: why an answer says what it says. Asked for by its owner only; answers of others go on meanwhile."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from ingle.app.explained import (  # fmt: skip
    Explained,
    account,
    explained,
    explanation_event,
    explanation_id,
    explanation_table,
    found_table,
    more_of,
    parts,
    said_again,
    span_in,
    stored_turn,
)
from ingle.app.replay import find_row
from ingle.app.why_words import cause_row, proved_cause, shown_values
from ingle.core.errors import NotKept, RequestError
from ingle.explain.cause import AnswerSpan, OutOfTime, ProvedCause, Why
from ingle.explain.why import WhyOptions, explain
from ingle.home.explanations import get_explanation, keep_explanation
from ingle.home.turns import find_completion
from ingle.ledger.chain import Ledger
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.beside import Beside
from ingle.serve.document import STREAMED
from ingle.serve.schema import ExplainBody
from ingle.serve.service import Service
from ingle.serve.stream import event_stream, while_connected

router = APIRouter(route_class=Keyed)
_NEWEST = 500  # newest facts of explanations among which a kept one's is looked for
Tables = AsyncGenerator[dict[str, Any], None]


@router.post("/v1/explain", tags=["answers"], responses=STREAMED)
async def explain_answer(
    body: ExplainBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Explain a stored answer: which sentences, memories, lessons and deltas it rests on, each proved by leaving it out."""
    tables = explanation(service, who, body)
    if body.shown:
        tables = _shown_too(service, who, body, tables)
    if body.stream:
        return await event_stream(http, tables)
    return JSONResponse(await while_connected(http, _last(tables)))


@router.post("/v1/explain/kept", tags=["answers"])
async def kept_for(body: ExplainBody, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return the explanation of an answer that was given before, as it was asked; `shown` is null where none was."""
    return await asyncio.to_thread(_kept, service, who, body)


def _kept(service: Service, who: str, body: ExplainBody) -> dict[str, Any]:
    turn = find_completion(service.engine, who, body.completion_id)
    if turn is None:
        raise NotKept("answer", "The text of this answer is not kept", "", "Keep conversations on the page, or ask with `store: true`.")
    id_ = explanation_id(turn.owner, turn.completion, _questions(turn.message.text, body), body.what)
    try:
        table = get_explanation(service.engine, who, id_)
    except NotKept:
        return {"object": "explanation", "shown": None}
    rows = Ledger(service.engine, service.home.keys).read("explain", last=_NEWEST)
    row = next((row for row in rows if row.values.get("explanation") == id_), None)
    took = {} if row is None else {**row.values, "event": row.seq}
    return table | {"shown": shown_values(service.engine, who, turn, table, took)}


async def _shown_too(service: Service, who: str, body: ExplainBody, tables: Tables) -> Tables:
    async with aclosing(tables) as opened:
        async for table in opened:
            if table["object"] == "explanation":
                turn = await asyncio.to_thread(find_completion, service.engine, who, body.completion_id)
                shown: Any = None if turn is None else await asyncio.to_thread(
                    shown_values, service.engine, who, turn, table, table.get("ingle", {})
                )  # fmt: skip
            else:
                shown = cause_row(proved_cause(table), {})
            yield table | {"shown": shown}


@router.get("/v1/explain/{id_}", tags=["answers"])
async def kept_explanation(id_: str, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return an explanation that was given before."""
    return await asyncio.to_thread(get_explanation, service.engine, who, id_)


async def explanation(service: Service, who: str, body: ExplainBody) -> Tables:
    """Yield the causes as they are proved, and at last the whole explanation. Raises NotKept, RequestError, Busy, HomeError."""
    began = time.perf_counter()
    beside = Beside(service, asyncio.get_running_loop(), who, began + body.budget_s)
    asked = await _found(service, who, body)
    outbox: asyncio.Queue[Any] = asyncio.Queue()

    def work() -> None:
        try:
            for one in _proved(beside, asked, body):
                beside.loop.call_soon_threadsafe(outbox.put_nowait, one)
        except OutOfTime:
            cure = "Give it more time: budget_s."
            late = RequestError("budget_s", "The time was over before the answer was given again", body.budget_s, cure)
            beside.loop.call_soon_threadsafe(outbox.put_nowait, late)
        except Exception as error:
            beside.loop.call_soon_threadsafe(outbox.put_nowait, error)

    threading.Thread(target=work, name="explain", daemon=True).start()
    try:
        while True:
            one = await outbox.get()
            if isinstance(one, Exception):
                raise one
            if isinstance(one, ProvedCause):
                yield found_table(one)
                continue
            id_, why = one
            yield await _finished(service, asked, id_, why, time.perf_counter() - began, beside)
            return
    finally:
        beside.stop()


def _proved(beside: Beside, asked: Explained, body: ExplainBody) -> Any:
    """Yield causes, and at last (id, explanation). Runs in a thread of its own."""
    [(shown, tap)] = beside.answers([(asked.choice.model, asked.request)])
    said = said_again(asked, shown, tap)
    questions = _questions(said.text, body)
    left_out = asked.variations if "taught" in body.what or "sure" in body.what else ()
    left_out += parts(asked) if "parts" in body.what else ()
    for one in explain(beside.reader, said, left_out, questions):
        if isinstance(one, Why):
            id_ = explanation_id(asked.turn.owner, asked.turn.completion, questions, body.what)
            yield id_, more_of(beside.reader, asked, said, one, body.what, beside.service.home, beside.service.engine)
        else:
            yield one


def _questions(answer: str, body: ExplainBody) -> WhyOptions:
    span = body.span
    if isinstance(span, str):
        found: AnswerSpan | None = span_in(answer, span)
    else:
        found = None if span is None else AnswerSpan(*span)
    return WhyOptions(found, body.method, "sentences" in body.what or "sure" in body.what)


async def _found(service: Service, who: str, body: ExplainBody) -> Explained:
    if not body.completion_id and body.event is None:
        raise RequestError("completion_id", "Say which answer to explain: completion_id or event", "neither")
    ledger = Ledger(service.engine, service.home.keys)

    def find() -> Any:
        if body.completion_id and find_completion(service.engine, who, body.completion_id) is None:
            cure = "Keep conversations on the page, or ask with `store: true`."
            raise NotKept("answer", "The text of this answer is not kept", "", cure)
        row = find_row(ledger, body.completion_id or str(body.event))
        return row, stored_turn(service.engine, row, who)

    row, turn = await asyncio.to_thread(find)
    kept, model = await service.models.find(row.subject)
    open_ = service.models.open
    return await asyncio.to_thread(explained, service.home, service.engine, service.chooser, row, turn, kept, model, open_, service.key)


async def _finished(service: Service, asked: Explained, id_: str, why: Why, seconds: float, beside: Beside) -> dict[str, Any]:
    table = {"id": id_, **explanation_table(why)}
    if why.complete:
        await asyncio.to_thread(keep_explanation, service.engine, asked.turn.owner, asked.turn.id, id_, table)
    event = explanation_event(asked.key, asked, id_, why, seconds, beside.energy)
    row = await asyncio.wrap_future(service.recorder.add(event))
    return account(table, seconds, beside.energy, row.seq)


async def _last(tables: Tables) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async with aclosing(tables) as opened:
        async for table in opened:
            last = table
    return last
