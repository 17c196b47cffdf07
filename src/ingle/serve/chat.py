"""`POST /v1/chat/completions`."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from ingle.app.answering import Ask, Keep
from ingle.core.message import Chunk, ImagePart, Request, TokenLogprob, ToolCall
from ingle.engine.language_model import LanguageModel, check_thinking
from ingle.engine.tools import check_tools, style_of, tool_constraint
from ingle.serve.aloud import SpokenReply, aloud, aloud_wish
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.convert import constraint_of, image_table, message_of, sampling_of, stops_of
from ingle.serve.document import STREAMED
from ingle.serve.hearing import hear_request
from ingle.serve.reply import GrowingReply, account_of, calls_in, choice_id, head, most_calls, usage_of
from ingle.serve.schema import ChatBody, ChatMessage, ToolChoice, is_effort
from ingle.serve.service import Service
from ingle.serve.speaking import Speaker
from ingle.serve.stream import answers, event_stream, while_connected

router = APIRouter(route_class=Keyed)


@router.post("/v1/chat/completions", tags=["answers"], responses=STREAMED)
async def chat_completions(
    body: ChatBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Answer a conversation."""
    model = await service.models.get(body.model)
    keep = Keep(learn=body.learn is not False) if body.store else None
    first = Ask(chat_request(body, service, model, who), model.name, who, keep=keep, memory=body.memory is not False)
    wish = await aloud_wish(body, service)
    request, heard = await hear_request(http, service, first.request, who, first.id)
    first = replace(first, request=request)
    asks = [first, *(_choice(first, body, service, number) for number in range(1, body.n or 1))]
    spoken = SpokenReply(Speaker(service, wish.voice, who, first.id), wish.format, service.sounds) if wish else None
    reply = ChatReply(asks, await service.models.acting(body.model, request), body, heard, spoken)
    chunks = answers(service, asks)
    if spoken is not None:
        chunks = aloud(spoken.talk, chunks, reply.words())
    if body.stream:
        return await event_stream(http, reply.events(chunks))
    return await while_connected(http, reply.whole(chunks))


def chat_request(body: ChatBody, service: Service, model: LanguageModel, asker: str = "") -> Request:
    """Return the engine's request for a body, which never asks the model for sound: its words are spoken. Raises RequestError for a wrong
    value, NotKept for a spoken answer that nobody remembers."""
    tools = tuple(body.tools or ()) if body.tool_choice != "none" else ()
    check_tools(tools)
    constraint = constraint_of(body.response_format, body.grammar)
    choice = body.tool_choice.model_dump() if isinstance(body.tool_choice, ToolChoice) else body.tool_choice or "auto"
    must_call = tool_constraint(style_of(model.tokenizer), tools, choice, body.parallel_tool_calls is not False)
    return Request(
        messages=tuple(message_of(_said(message, service, asker, i), f"messages[{i}]") for i, message in enumerate(body.messages)),
        tools=tools,
        constraint=must_call or constraint,
        max_tokens=body.max_completion_tokens or body.max_tokens or service.settings.max_tokens,
        stop=stops_of(body),
        modalities=tuple(name for name in body.modalities or () if name != "audio") or ("text",),
        think=check_thinking(model, _thinks(body), "reasoning_effort"),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        sampling=sampling_of(body, service.sampling),
    )


def _thinks(body: ChatBody) -> bool:
    """Return whether the model shall think aloud first: by the template's own switch, else by the effort."""
    switch = body.chat_template_kwargs.enable_thinking if body.chat_template_kwargs else None
    return is_effort(body.reasoning_effort) if switch is None else switch


class ChatReply:
    """Builds the response to one request, whole or as chunks."""

    def __init__(
        self, asks: Sequence[Ask], model: LanguageModel, body: ChatBody, heard: Sequence[dict[str, Any]] = (),
        spoken: SpokenReply | None = None,
    ) -> None:  # fmt: skip
        """heard: words of the request's recordings, for Ingle's own field."""
        self._head = head(asks[0].id, "chat.completion", model)
        self._chunk_head = self._head | {"object": "chat.completion.chunk"}
        self._model, self._body, self._heard, self._spoken = model, body, list(heard), spoken
        self._style = style_of(model.tokenizer) if body.tools and body.tool_choice != "none" else None
        self._growing = [self._grow(ask) for ask in asks]
        self._first = asks[0]
        self._asked_usage = bool(body.stream_options and body.stream_options.include_usage)

    def words(self) -> Callable[[Chunk], str]:
        """Return a reader of the words of the first answer, without its calls, which nobody wants to hear."""
        growing = self._grow(self._first)
        return lambda chunk: growing.take(chunk)[0]

    def _grow(self, ask: Ask) -> GrowingReply:
        return GrowingReply(calls_in(self._style, ask.id) if self._style else None, most_calls(self._body))

    def _account(self, lasts: Sequence[Chunk]) -> dict[str, Any]:
        heard = {"heard": self._heard} if self._heard else {}
        return account_of(lasts) | heard | ({"spoken": self._spoken.talk.about} if self._spoken else {})

    async def whole(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> Response:
        """Return the whole response after the last chunk."""
        async with aclosing(chunks) as opened:
            async for number, chunk in opened:
                text, _ = self._growing[number].take(chunk)
                if self._spoken:
                    self._spoken.take(text, chunk)
        lasts = [growing.last for growing in self._growing if growing.last]
        choices = [self._choice(i, growing) for i, growing in enumerate(self._growing)]
        if self._spoken:
            choices[0]["message"] |= {"content": None, "audio": await self._spoken.whole()}
        return JSONResponse(self._head | {"choices": choices, "usage": usage_of(lasts), "ingle": self._account(lasts)})

    async def events(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> AsyncIterator[dict[str, Any]]:
        """Yield one event per piece."""
        begun: set[int] = set()
        lasts: list[Chunk] = []
        if self._heard:  # at once, so that people see how they were understood
            yield self._chunk_head | {"choices": [], "ingle": {"heard": self._heard}}
        async with aclosing(chunks) as opened:
            async for number, chunk in opened:
                growing = self._growing[number]
                counted = len(growing.calls)
                text, calls = growing.take(chunk)
                delta: dict[str, Any] = {} if number in begun else {"role": "assistant", "content": ""}
                if self._spoken:
                    delta |= {"audio": audio} if (audio := self._spoken.delta(text, chunk, number not in begun)) else {}
                elif text or (number not in begun and not calls):
                    delta["content"] = text
                if pictures := [part for part in chunk.media if isinstance(part, ImagePart)]:
                    delta["images"] = [image_table(part) for part in pictures]
                if calls:
                    delta["tool_calls"] = [{"index": counted + i} | _call(call) for i, call in enumerate(calls)]
                begun.add(number)
                if delta or chunk.logprobs:
                    yield self._piece(number, delta, None, chunk.logprobs)
                if chunk.finish and self._spoken:
                    yield self._piece(number, {"audio": self._spoken.end()}, None, ())
                if chunk.finish:  # in a piece of its own, as OpenAI does: clients look back at what came before
                    yield self._piece(number, {}, growing.finish, ())
                    lasts.append(chunk)
        end: dict[str, Any] = self._chunk_head | {"choices": [], "ingle": self._account(lasts)}
        if self._asked_usage:
            yield end | {"usage": usage_of(lasts)}

    def _piece(self, number: int, delta: dict[str, Any], finish: str | None, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": self._logprobs(logprobs), "finish_reason": finish}
        return self._chunk_head | {"choices": [choice]} | ({"usage": None} if self._asked_usage else {})

    def _choice(self, number: int, growing: GrowingReply) -> dict[str, Any]:
        text = "".join(growing.text)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not growing.calls else None, "refusal": None}
        if growing.pictures:
            message["images"] = [image_table(picture) for picture in growing.pictures]
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


def _said(message: ChatMessage, service: Service, asker: str, number: int) -> ChatMessage:
    """Return an assistant's message that names a spoken answer, with that answer's words."""
    if message.audio is None or message.content:
        return message
    return message.model_copy(update={"content": service.sounds.words_of(asker, message.audio.id, f"messages[{number}].audio.id")})


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _choice(first: Ask, body: ChatBody, service: Service, number: int) -> Ask:
    """Return the same question with another seed."""
    request = replace(first.request, sampling=sampling_of(body, service.sampling, number))
    return replace(first, request=request, id=choice_id(first.id, number))
