"""`/v1/responses` for text and function calls. Stored answers can be continued, read and deleted."""

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from ingle.app.answering import Ask, Keep
from ingle.core.energy import energy_in
from ingle.core.errors import NotKept, RequestError
from ingle.core.message import Chunk, Finish, ImagePart, Message, Part, Request, TextPart, ToolCall
from ingle.engine.language_model import LanguageModel, check_thinking
from ingle.engine.tools import check_tools, style_of, tool_constraint
from ingle.home.turns import Turn, drop, find_completion, path
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.convert import constraint_of, image_of, origin_of, recording_of, sampling_of
from ingle.serve.document import STREAMED
from ingle.serve.hearing import hear_request
from ingle.serve.reply import FINISH, GrowingReply, account_of, calls_in, choice_id, most_calls, usage_of
from ingle.serve.schema import MOST_CHOICES, Drawing, JsonSchema, ResponseFormat, ResponsesBody, ResponsesItem, is_effort
from ingle.serve.service import Service
from ingle.serve.stream import answers, event_stream, while_connected

router = APIRouter(route_class=Keyed)
Events = AsyncGenerator[dict[str, Any], None]
Chunks = AsyncGenerator[tuple[int, Chunk], None]
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}  # why an answer is not whole, by its finish reason


@router.post("/v1/responses", tags=["answers"], responses=STREAMED)
async def responses(
    body: ResponsesBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Create an answer, as OpenAI's Responses API does."""
    model = await service.models.get(body.model)
    before = await _before(service, who, body.previous_response_id)
    keep = Keep(learn=body.learn is not False) if body.store is not False else None
    id_ = f"resp_{uuid.uuid4().hex}"
    request, heard = await hear_request(http, service, responses_request(body, service, model, before), who, id_)
    ask = Ask(request, model.name, who, id_, keep, memory=body.memory is not False)
    reply = ResponsesReply(ask, await service.models.acting(body.model, request), body, heard)
    chunks = answers(service, [ask])
    if body.stream:
        return await event_stream(http, reply.events(chunks), named=True)
    return await while_connected(http, reply.whole(chunks))


@router.get("/v1/responses/{id_}", tags=["answers"])
async def kept_response(id_: str, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return a stored answer: all are, but for those that were asked for with `store: false`."""
    turn = await asyncio.to_thread(find_completion, service.engine, who, id_)
    if turn is None:
        raise _unknown(id_)
    facts, (message, finish) = turn.facts or {}, await _stored_message(service, turn)
    cut = _CUT.get(finish)
    pictures = [_picture(id_, number, part) for number, part in enumerate(message.parts) if isinstance(part, ImagePart)]
    said = [_message(f"msg_{id_}", message.text)] if not pictures and (message.text or not message.tool_calls) else []
    output = [*pictures, *said]
    table = _table(id_, str(facts.get("model_name", "")), "incomplete" if cut else "completed", [*output, *map(_call, message.tool_calls)])
    read, written = facts.get("prompt_tokens", 0), facts.get("completion_tokens", 0)
    return table | {
        "created_at": int(datetime.fromisoformat(turn.at).timestamp()),
        "incomplete_details": {"reason": cut} if cut else None,
        "usage": _usage(read, written, facts.get("cached_tokens", 0), _energy(facts)),
        "ingle": {"events": [facts.get("seq")], "model_digest": facts.get("model"), "ended": [facts.get("finish")]},
    }


@router.delete("/v1/responses/{id_}", tags=["answers"])
async def delete_response(id_: str, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Delete a stored answer with all its choices (`n`), and its question, unless another answer follows it too."""
    if await asyncio.to_thread(find_completion, service.engine, who, id_) is None:
        raise _unknown(id_)
    for name in (id_, *(choice_id(id_, number) for number in range(1, MOST_CHOICES))):  # no client is told the others' ids
        turn = await asyncio.to_thread(find_completion, service.engine, who, name)
        if turn is not None:
            await asyncio.to_thread(drop, service.engine, who, turn.id)
            service.forget(who, turn.conversation or name)
    return {"id": id_, "object": "response", "deleted": True}


def responses_request(body: ResponsesBody, service: Service, model: LanguageModel, before: tuple[Message, ...]) -> Request:
    """Return the engine's request for a body. Raises RequestError for a wrong value."""
    tools = _tools(body.tools or []) if body.tool_choice != "none" else ()
    check_tools(tools)
    must_call = tool_constraint(style_of(model.tokenizer), tools, body.tool_choice or "auto", body.parallel_tool_calls is not False)
    format_ = body.text.format if body.text else None
    output_format = ResponseFormat(type=format_.type, json_schema=JsonSchema(schema=format_.json_schema)) if format_ else None
    instructions = (Message.of("system", body.instructions),) if body.instructions else ()
    if not body.input and not before:
        raise RequestError("input", "must hold something", "nothing")
    items = [ResponsesItem(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    drawing = Drawing.model_validate({"temperature": body.temperature, "top_p": body.top_p, "seed": body.seed})
    return Request(
        messages=(*instructions, *before, *(_item(item, f"input[{i}]") for i, item in enumerate(items))),
        tools=tools,
        constraint=must_call or constraint_of(output_format, None),
        max_tokens=body.max_output_tokens or service.settings.max_tokens,
        think=check_thinking(model, is_effort(body.reasoning.effort if body.reasoning else None), "reasoning"),
        sampling=sampling_of(drawing, service.sampling),
    )


class ResponsesReply:
    """Builds the response to one request, whole or as events."""

    def __init__(self, ask: Ask, model: LanguageModel, body: ResponsesBody, heard: Sequence[dict[str, Any]] = ()) -> None:
        self._ask, self._model, self._body, self._heard = ask, model, body, list(heard)
        offered = body.tools and body.tool_choice != "none"
        self._growing = GrowingReply(calls_in(style_of(model.tokenizer), ask.id) if offered else None, most_calls(body))
        self._item = f"msg_{ask.id}"
        self._number = 0

    async def whole(self, chunks: Chunks) -> Response:
        """Return the whole response after the last chunk."""
        async for _, chunk in chunks:
            self._growing.take(chunk)
        return JSONResponse(self._done())

    async def events(self, chunks: Chunks) -> Events:
        """Yield the events of the Responses API, in their order."""
        calls: list[ToolCall] = []
        begun = False
        async with aclosing(chunks) as opened:
            async for _, chunk in opened:
                if not self._number:
                    yield self._event("response.created", {"response": self._now("in_progress")})
                    yield self._event("response.in_progress", {"response": self._now("in_progress")})
                text, new = self._growing.take(chunk)
                if text and not begun:
                    begun = True
                    for event in self._begin():
                        yield event
                if text:
                    yield self._part("response.output_text.delta", {"delta": text, "logprobs": []})
                calls += new
        for index, picture in enumerate(self._growing.pictures):
            for event in self._drawn(index, picture):
                yield event
        if begun or not (calls or self._growing.pictures):
            for event in self._end() if begun else (*self._begin(), *self._end()):
                yield event
        for index, call in enumerate(calls, int(begun) + len(self._growing.pictures)):
            for event in self._call(index, call):
                yield event
        last = "response.incomplete" if self._growing.finish in _CUT else "response.completed"
        yield self._event(last, {"response": self._done()})

    def _begin(self) -> list[dict[str, Any]]:
        item = _message(self._item, None, "in_progress")
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        added = self._event("response.output_item.added", {"output_index": 0, "item": item})
        return [added, self._part("response.content_part.added", {"part": part})]

    def _end(self) -> list[dict[str, Any]]:
        item = _message(self._item, "".join(self._growing.text))
        return [
            self._part("response.output_text.done", {"text": "".join(self._growing.text), "logprobs": []}),
            self._part("response.content_part.done", {"part": item["content"][0]}),
            self._event("response.output_item.done", {"output_index": 0, "item": item}),
        ]

    def _drawn(self, index: int, picture: ImagePart) -> list[dict[str, Any]]:
        item = _picture(self._ask.id, index, picture)
        return [
            self._event("response.output_item.added", {"output_index": index, "item": item | {"status": "in_progress", "result": None}}),
            self._event("response.image_generation_call.completed", {"output_index": index, "item_id": item["id"]}),
            self._event("response.output_item.done", {"output_index": index, "item": item}),
        ]

    def _call(self, index: int, call: ToolCall) -> list[dict[str, Any]]:
        item = _call(call)
        place: dict[str, Any] = {"output_index": index, "item_id": item["id"]}
        return [
            self._event("response.output_item.added", {"output_index": index, "item": item | {"status": "in_progress", "arguments": ""}}),
            self._event("response.function_call_arguments.delta", place | {"delta": call.arguments}),
            self._event("response.function_call_arguments.done", place | {"name": call.name, "arguments": call.arguments}),
            self._event("response.output_item.done", {"output_index": index, "item": item}),
        ]

    def _part(self, type_: str, facts: dict[str, Any]) -> dict[str, Any]:
        return self._event(type_, {"item_id": self._item, "output_index": 0, "content_index": 0} | facts)

    def _event(self, type_: str, facts: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {"type": type_, "sequence_number": self._number - 1} | facts

    def _now(self, status: str, output: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        table = _table(self._ask.id, self._model.name, status, output)
        request = self._ask.request
        table |= {"temperature": request.sampling.temperature, "top_p": request.sampling.top_p, "max_output_tokens": request.max_tokens}
        echo: dict[str, Any] = {"instructions": self._body.instructions, "previous_response_id": self._body.previous_response_id}
        echo |= {"tools": self._body.tools or [], "tool_choice": self._body.tool_choice or "auto", "store": self._body.store is not False}
        return table | echo | {"parallel_tool_calls": self._body.parallel_tool_calls is not False}

    def _done(self) -> dict[str, Any]:
        growing, lasts = self._growing, [self._growing.last] if self._growing.last else []
        heard = {"heard": self._heard} if self._heard else {}
        text = "".join(growing.text)
        pictures = [_picture(self._ask.id, number, picture) for number, picture in enumerate(growing.pictures)]
        output = [*pictures, *([_message(self._item, text)] if text or not (growing.calls or pictures) else [])]
        cut = _CUT.get(growing.finish or "")
        table = self._now("incomplete" if cut else "completed", [*output, *map(_call, growing.calls)])
        usage = usage_of(lasts)
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        counts = _usage(usage["prompt_tokens"], usage["completion_tokens"], cached, usage["energy"])
        return table | {"incomplete_details": {"reason": cut} if cut else None, "usage": counts, "ingle": account_of(lasts) | heard}


def _table(id_: str, model: str, status: str, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": id_, "object": "response", "created_at": int(time.time()), "status": status, "model": model, "output": list(output),
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], "text": {"format": {"type": "text"}}, "usage": None,
    }  # fmt: skip


def _usage(read: int, written: int, cached: int, energy: dict[str, Any] | None) -> dict[str, Any]:
    counts = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written, "energy": energy}
    return counts | {"input_tokens_details": {"cached_tokens": cached}, "output_tokens_details": {"reasoning_tokens": 0}}


def _energy(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    energy = energy_in(facts)
    return energy.table() if energy else None


def _message(id_: str, text: str | None, status: str = "completed") -> dict[str, Any]:
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": id_, "type": "message", "status": status, "role": "assistant", "content": content}


def _call(call: ToolCall) -> dict[str, Any]:
    name = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": f"fc_{call.id}", "type": "function_call", "status": "completed", **name}


async def _before(service: Service, who: str, previous: str | None) -> tuple[Message, ...]:
    """Return the conversation up to a stored answer. Instructions are not carried over, as with OpenAI."""
    if not previous:
        return ()
    turn = await asyncio.to_thread(find_completion, service.engine, who, previous)
    if turn is None:
        raise NotKept("previous_response_id", f"There is no stored answer {previous}", "", "Was it asked for with `store: false`?")
    before = await asyncio.to_thread(path, service.engine, who, turn.id)
    message, _ = await _stored_message(service, turn)
    return (*(one.message for one in before[:-1] if one.message.role != "system"), message)


async def _stored_message(service: Service, turn: Turn) -> tuple[Message, str]:
    """Return a stored answer with its calls parsed (unparsed if its model is gone), and OpenAI's finish reason."""
    facts = turn.facts or {}
    finish: Finish = facts.get("finish", "stop")
    if not facts.get("request", {}).get("tools"):
        return turn.message, FINISH[finish]
    try:
        model = await service.models.get(str(facts.get("model_name", "")))
    except NotKept:
        return turn.message, FINISH[finish]
    growing = GrowingReply(calls_in(style_of(model.tokenizer), turn.completion))
    growing.take(Chunk(turn.message.text, finish=finish))
    text = "".join(growing.text)
    return Message("assistant", (TextPart(text),) if text else (), tuple(growing.calls)), growing.finish or FINISH[finish]


def _item(item: ResponsesItem, at: str) -> Message:
    """Return one item of the input as a message. `at` names it in errors."""
    if item.type == "function_call":
        return Message("assistant", (), (ToolCall(item.call_id or "", item.name or "", item.arguments or "{}"),))
    if item.type == "function_call_output":
        return Message("tool", (TextPart(item.output or ""),), (), item.call_id or "")
    if item.role is None or item.content is None:
        raise RequestError(at, "must have a role and content", "neither" if item.role is None and item.content is None else "one of them")
    role = "system" if item.role == "developer" else item.role
    if isinstance(item.content, str):
        return Message.of(role, item.content)
    return Message(role, tuple(_part(part, f"{at}.content[{i}]") for i, part in enumerate(item.content)))


def _part(part: dict[str, Any], at: str) -> Part:
    """Return one part of an item's content. Raises RequestError for another kind."""
    kind, origin = part.get("type"), origin_of(part.get("origin"), f"{at}.origin")
    if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
        return TextPart(part["text"], origin)
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return image_of(part["image_url"], f"{at}.image_url", origin)
    if kind == "input_audio":
        return recording_of(part, at)
    raise RequestError(at, "must be text, a recording, or a picture in a data: URL, because files are not understood here", str(kind)[:40])


def _picture(id_: str, number: int, picture: ImagePart) -> dict[str, Any]:
    result = base64.b64encode(picture.data).decode()
    return {"type": "image_generation_call", "id": f"ig_{id_}-{number}", "status": "completed", "result": result}


def _tools(flat: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Nest the flat functions of the Responses API as chat completions do, which templates expect."""
    tools = []
    for i, tool in enumerate(flat):
        if tool.get("type") != "function":
            raise RequestError(f"tools[{i}].type", "must be 'function'", str(tool.get("type"))[:40])
        tools.append({"type": "function", "function": {name: value for name, value in tool.items() if name not in ("type", "strict")}})
    return tuple(tools)


def _unknown(id_: str) -> NotKept:
    return NotKept("response_id", f"There is no stored answer {id_[:80]}", "", "Was it asked for with `store: false`?")
