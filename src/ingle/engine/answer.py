"""One answer: prompt to ids, the longest part already read, prefill, then token by token until something ends it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingle.core.errors import CannotRewind, ContextError, RequestError
from ingle.core.message import Chunk, Finish, Request, TokenLogprob, Usage
from ingle.engine.backend import AnyState, Backend, prefill, step
from ingle.engine.sampling import Sampler, log_probabilities
from ingle.model.template import encode_chat
from ingle.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModel:
    """A backend and the words it speaks."""

    name: str
    backend: Backend
    tokenizer: Tokenizer

    def encode(self, request: Request) -> list[int]:
        """The ids that a request stands for. Raises RequestError if there are none, TemplateError if the template fails."""
        if request.prompt is None:
            ids = encode_chat(self.tokenizer, request.messages)
        else:
            ids = self.tokenizer.encode_prompt(request.prompt) if isinstance(request.prompt, str) else list(request.prompt)
        if not ids:
            raise RequestError("prompt", "must hold at least one token", "an empty text", "Give some text to go on from.")
        return ids


@dataclass
class Session:
    """What a conversation has read so far, so that its next turn reads only what is new."""

    state: AnyState
    ids: list[int] = field(default_factory=list)

    def resume(self, ids: Sequence[int], new_state: Callable[[], Any]) -> int:
        """Goes back to the longest common start of what was read and `ids`, one token short at most; returns its length."""
        limit = min(len(ids) - 1, len(self.ids))
        common = next((i for i in range(limit) if ids[i] != self.ids[i]), limit)
        try:
            self.state.rewind(common)
        except CannotRewind:
            self.state, common = new_state(), 0
        del self.ids[common:]
        return common


class StopStrings:
    """Text that passes until a stop string appears in it; what may be the start of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """What can be shown now that `text` has come."""
        if not self._stops or self.hit:
            return "" if self.hit else text
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.hit = True
            return self._held[: min(found)]
        keep = max(self._overlap(stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        rest, self._held = ("" if self.hit else self._held), ""
        return rest

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text with which `stop` begins."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)


def answer(
    model: LanguageModel,
    request: Request,
    session: Session | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Iterator[Chunk]:
    """The answer in pieces; the last one has `finish` and `usage`.

    `session` is read on from and kept up to date, even if the caller stops iterating. `stopped` is asked after every token.
    Raises ContextError for a prompt that doesn't fit; TemplateError, RequestError for one that can't be encoded.
    """
    backend, tokenizer = model.backend, model.tokenizer
    ids = model.encode(request)
    room = backend.config.context_length - len(ids)
    if room < 1:
        cure = "Shorten the conversation, or start a new one."
        raise ContextError(
            "prompt", f"must leave room within the context of {backend.config.context_length} tokens", f"{len(ids)} tokens", cure
        )
    session = session or Session(backend.new_state())
    sampler = Sampler(request.sampling, backend.config.vocab_size, ids)
    start = time.perf_counter()
    cached = session.resume(ids, backend.new_state)
    try:
        logits = prefill(backend, ids[cached:], session.state, progress)
    finally:
        session.ids = ids[: session.state.length]  # all of it, or what was read before Ctrl-C
    read = time.perf_counter()
    stream, stops = tokenizer.stream(continues=request.prompt is not None), StopStrings(request.stop)
    most = min(request.max_tokens or room, room)
    finish: Finish | None = None
    count = 0
    while finish is None:
        token = sampler.pick(logits)
        count += 1
        ended = token in tokenizer.eos_ids
        text = "" if ended else stops.feed(stream.feed(token))
        logprobs = (_logprob(tokenizer, logits, token, request.logprobs),) if request.logprobs is not None else ()
        if ended or stops.hit:
            finish = "stop"
        elif count == most:
            finish = "length"
        elif stopped():
            finish = "cancelled"
        else:
            [logits] = step(backend, [(session.state, token)])
            session.ids.append(token)
            yield Chunk(text, (token,), logprobs)
    text += stops.feed(stream.flush()) + stops.flush()
    if stops.hit:
        finish = "stop"
    usage = Usage(len(ids), cached, count, read - start, time.perf_counter() - read, session.state.nbytes)
    yield Chunk(text, (token,), logprobs, finish, usage)


def _logprob(tokenizer: Tokenizer, logits: Any, token: int, alternatives: int) -> TokenLogprob:
    values = log_probabilities(logits)
    best = values.argsort()[::-1][:alternatives]
    top = tuple((int(i), tokenizer.decode([int(i)], skip_special=False), float(values[i])) for i in best)
    return TokenLogprob(token, tokenizer.decode([token], skip_special=False), float(values[token]), top)
