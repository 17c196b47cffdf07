"""`POST /v1/chat/completions`."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from ingle.core.message import Chunk, Request, TokenLogprob, ToolCall
from ingle.engine.language_model import LanguageModel
from ingle.engine.tools import check_tools, style_of, tool_constraint
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.convert import constraint_of, message_of, sampling_of, stops_of
from ingle.serve.document import STREAMED
from ingle.serve.reply import GrowingReply, account_of, calls_in, choice_id, head, most_calls, usage_of
from ingle.serve.schema import ChatBody, ToolChoice
from ingle.serve.service import Ask, Keep, Service
from ingle.serve.stream import answers, event_stream, while_connected

router = APIRouter(route_class=Keyed)


@router.post("/v1/chat/completions", tags=["answers"], responses=STREAMED)
async def chat_completions(
    body: ChatBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Answer a conversation."""
    model = await service.models.get(body.model)
    keep = Keep(learn=body.learn is not False) if body.store else None
    first = Ask(chat_request(body, service, model), model.name, who, keep=keep, memory=body.memory is not False)
    asks = [first, *(_choice(first, body, service, number) for number in range(1, body.n or 1))]
    reply = ChatReply(asks, model, body)
    if body.stream:
        return await event_stream(http, reply.events(answers(service, asks)))
    return await while_connected(http, reply.whole(answers(service, asks)))


def chat_request(body: ChatBody, service: Service, model: LanguageModel) -> Request:
    """Return the engine's request for a body. Raises RequestError for a wrong value."""
    tools = tuple(body.tools or ()) if body.tool_choice != "none" else ()
    check_tools(tools)
    constraint = constraint_of(body.response_format, body.grammar)
    choice = body.tool_choice.model_dump() if isinstance(body.tool_choice, ToolChoice) else body.tool_choice or "auto"
    must_call = tool_constraint(style_of(model.tokenizer), tools, choice, body.parallel_tool_calls is not False)
    return Request(
        messages=tuple(message_of(message, f"messages[{i}]") for i, message in enumerate(body.messages)),
        tools=tools,
        constraint=must_call or constraint,
        max_tokens=body.max_completion_tokens or body.max_tokens or service.settings.max_tokens,
        stop=stops_of(body),
        modalities=tuple(body.modalities or ("text",)),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        sampling=sampling_of(body, service.sampling),
    )


class ChatReply:
    """Builds the response to one request, whole or as chunks."""

    def __init__(self, asks: Sequence[Ask], model: LanguageModel, body: ChatBody) -> None:
        self._head = head(asks[0].id, "chat.completion", model)
        self._chunk_head = self._head | {"object": "chat.completion.chunk"}
        self._model, self._body = model, body
        style = style_of(model.tokenizer) if body.tools and body.tool_choice != "none" else None
        self._growing = [GrowingReply(calls_in(style, ask.id) if style else None, most_calls(body)) for ask in asks]
        self._asked_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> Response:
        """Return the whole response after the last chunk."""
        async for number, chunk in chunks:
            self._growing[number].take(chunk)
        lasts = [growing.last for growing in self._growing if growing.last]
        table = self._head | {"choices": [self._choice(i, growing) for i, growing in enumerate(self._growing)]}
        return JSONResponse(table | {"usage": usage_of(lasts), "ingle": account_of(lasts)})

    async def events(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> AsyncIterator[dict[str, Any]]:
        """Yield one event per piece."""
        begun: set[int] = set()
        lasts: list[Chunk] = []
        async with aclosing(chunks) as opened:
            async for number, chunk in opened:
                growing = self._growing[number]
                counted = len(growing.calls)
                text, calls = growing.take(chunk)
                delta: dict[str, Any] = {} if number in begun else {"role": "assistant", "content": ""}
                if text or (number not in begun and not calls):
                    delta["content"] = text
                if calls:
                    delta["tool_calls"] = [{"index": counted + i} | _call(call) for i, call in enumerate(calls)]
                begun.add(number)
                if delta or chunk.logprobs:
                    yield self._piece(number, delta, None, chunk.logprobs)
                if chunk.finish:  # in a piece of its own, as OpenAI does: clients look back at what came before
                    yield self._piece(number, {}, growing.finish, ())
                    lasts.append(chunk)
        end: dict[str, Any] = self._chunk_head | {"choices": [], "ingle": account_of(lasts)}
        if self._asked_usage:
            yield end | {"usage": usage_of(lasts)}

    def _piece(self, number: int, delta: dict[str, Any], finish: str | None, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": self._logprobs(logprobs), "finish_reason": finish}
        return self._chunk_head | {"choices": [choice]} | ({"usage": None} if self._asked_usage else {})

    def _choice(self, number: int, growing: GrowingReply) -> dict[str, Any]:
        text = "".join(growing.text)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not growing.calls else None, "refusal": None}
        if growing.calls:
            message["tool_calls"] = [_call(call) for call in growing.calls]
        return {"index": number, "message": message, "logprobs": self._logprobs(growing.logprobs), "finish_reason": growing.finish}

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        ends = self._model.tokenizer.eos_ids  # its text is none of the answer's
        return {"content": [self._logprob(entry) for entry in entries if entry.token not in ends], "refusal": None}

    def _logprob(self, entry: TokenLogprob) -> dict[str, Any]:
        def table(token: int, text: str, value: float | None) -> dict[str, Any]:
            return {"token": text, "logprob": value, "bytes": list(self._model.tokenizer.token_bytes(token))}

        return table(entry.token, entry.text, entry.logprob) | {"top_logprobs": [table(*alternative) for alternative in entry.top]}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _choice(first: Ask, body: ChatBody, service: Service, number: int) -> Ask:
    """Return the same question with another seed."""
    request = replace(first.request, sampling=sampling_of(body, service.sampling, number))
    return replace(first, request=request, id=choice_id(first.id, number))
