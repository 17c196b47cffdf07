"""`POST /v1/completions`: plain prompts as text or token ids, with the log-probabilities that evaluation harnesses need."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from ingle.app.answering import Ask
from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Request, TokenLogprob
from ingle.engine.language_model import LanguageModel
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.convert import constraint_of, sampling_of, stops_of
from ingle.serve.document import STREAMED
from ingle.serve.reply import FINISH, account_of, drafts_of, head, usage_of
from ingle.serve.schema import CompletionBody
from ingle.serve.service import Service
from ingle.serve.stream import answers, event_stream, while_connected

router = APIRouter(route_class=Keyed)
_MOST_PROMPTS = 128


@router.post("/v1/completions", tags=["answers"], responses=STREAMED)
async def completions(
    body: CompletionBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Continue plain text."""
    model = await service.models.get(body.model)
    prompts = prompts_of(body, model)
    count = body.n or 1
    if len(prompts) * count > _MOST_PROMPTS:
        raise RequestError("prompt", f"must ask for at most {_MOST_PROMPTS} answers", f"{len(prompts)} × {count}")
    asks = []
    for i in range(len(prompts) * count):
        ask = Ask(_request(body, service, prompts[i // count], i % count), model.name, who)
        asks.append(replace(ask, id=f"cmpl-{ask.id.removeprefix('chatcmpl-')}"))
    reply = CompletionReply(asks, model, body)
    if body.stream:
        return await event_stream(http, reply.events(answers(service, asks)))
    return await while_connected(http, reply.whole(answers(service, asks)))


def prompts_of(body: CompletionBody, model: LanguageModel) -> list[str | tuple[int, ...]]:
    """Return the prompts of a body, as text or token ids. Raises RequestError for none, or for ids that the model doesn't have."""
    prompt_or_list = body.prompt
    if isinstance(prompt_or_list, str):
        return [prompt_or_list]
    ids = [item for item in prompt_or_list if isinstance(item, int)]
    prompts: list[str | tuple[int, ...]] = (
        [tuple(ids)] if ids else [p if isinstance(p, str) else tuple(p) for p in prompt_or_list if not isinstance(p, int)]
    )
    if not prompts:
        raise RequestError("prompt", "must hold at least one", "an empty list")
    size = model.backend.config.vocab_size
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str) and any(not 0 <= token < size for token in prompt):
            raise RequestError(f"prompt[{i}]", f"must hold token ids below {size}", f"{min(prompt)} … {max(prompt)}")
    return prompts


def _request(body: CompletionBody, service: Service, prompt: str | tuple[int, ...], choice: int) -> Request:
    return Request(
        prompt=prompt,
        constraint=constraint_of(None, body.grammar),
        echo=bool(body.echo) and body.logprobs is not None,
        max_tokens=16 if body.max_tokens is None else body.max_tokens,  # OpenAI's default for this endpoint
        stop=stops_of(body),
        logprobs=body.logprobs,
        sampling=sampling_of(body, service.sampling, choice),
    )


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    last: Chunk | None = None


class CompletionReply:
    """Builds the response to one request, whole or as chunks."""

    def __init__(self, asks: Sequence[Ask], model: LanguageModel, body: CompletionBody) -> None:
        self._head = head(asks[0].id, "text_completion", model)
        self._model, self._body = model, body
        self._before = [self._echo(ask.request) for ask in asks]
        self._choices = [_Choice() for _ in asks]
        self._asked_usage = bool(body.stream_options and body.stream_options.include_usage)

    async def whole(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> Response:
        """Return the whole response after the last chunk."""
        async for number, chunk in chunks:
            choice = self._choices[number]
            choice.text.append(chunk.text)
            choice.logprobs += chunk.logprobs
            choice.last = chunk
        lasts = [choice.last for choice in self._choices if choice.last]
        rows = []
        for i, choice in enumerate(self._choices):
            finish = FINISH[choice.last.finish] if choice.last and choice.last.finish else None
            logprobs = self._logprobs(choice.logprobs, 0)
            rows.append({"index": i, "text": self._before[i] + "".join(choice.text), "logprobs": logprobs, "finish_reason": finish})
        return JSONResponse(self._head | {"choices": rows, "usage": self._usage(lasts), "ingle": account_of(lasts)})

    async def events(self, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> AsyncIterator[dict[str, Any]]:
        """Yield one event per piece."""
        lasts: list[Chunk] = []
        sent = ["" for _ in self._choices]
        async with aclosing(chunks) as opened:
            async for number, chunk in opened:
                before, self._before[number] = self._before[number], ""
                text, offset = before + chunk.text, len(sent[number])
                sent[number] += text
                finish = FINISH[chunk.finish] if chunk.finish else None
                if text or finish or chunk.logprobs:
                    row = {"index": number, "text": text, "logprobs": self._logprobs(chunk.logprobs, offset), "finish_reason": finish}
                    yield self._head | {"choices": [row]} | ({"usage": None} if self._asked_usage else {})
                lasts += [chunk] if chunk.finish else []
        if self._asked_usage:
            yield self._head | {"choices": [], "usage": self._usage(lasts), "ingle": account_of(lasts)}

    def _usage(self, lasts: Sequence[Chunk]) -> dict[str, Any]:
        """Return the usage of all answers. Unlike a conversation's choices, prompts differ, so all count."""
        usages = [chunk.usage for chunk in lasts if chunk.usage]
        prompt, written = (sum(getattr(usage, name) for usage in usages) for name in ("prompt_tokens", "completion_tokens"))
        cached = sum(usage.cached_tokens for usage in usages)
        table = usage_of(lasts) | {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        return table | {"prompt_tokens_details": {"cached_tokens": cached}, "completion_tokens_details": drafts_of(usages)}

    def _echo(self, request: Request) -> str:
        if not self._body.echo:
            return ""
        assert request.prompt is not None
        return request.prompt if isinstance(request.prompt, str) else self._model.tokenizer.decode(request.prompt, skip_special=False)

    def _logprobs(self, entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        offsets = []
        for entry in entries:
            offsets.append(offset)
            offset += len(entry.text)
        return {
            "tokens": [entry.text for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [None if entry.logprob is None else _by_text(entry) for entry in entries],
            "text_offset": offsets,
        }


def _by_text(entry: TokenLogprob) -> dict[str, float]:
    """Return the likeliest tokens by text. Several may read the same (parts of a character): the likeliest counts."""
    logprobs = dict[str, float]()
    for _, text, value in entry.top:
        logprobs.setdefault(text, value)
    return logprobs
