"""A growing answer in OpenAI's shape, shared by the API's endpoints."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ingle.app.facts import verdict_tables
from ingle.core.digest import digest_bytes
from ingle.core.energy import Energy, total
from ingle.core.message import Chunk, Finish, ImagePart, TokenLogprob, ToolCall, Usage
from ingle.engine.language_model import LanguageModel
from ingle.engine.tools import CallsMade, Style, ToolCallStream
from ingle.serve.schema import ChatBody, ResponsesBody

# OpenAI's finish reasons. It has none for an answer that the server cut; "length" means that it is not whole, and `ended` says why.
FINISH: Mapping[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "repetition": "length",
    "cancelled": "length",
    "deadline": "length",
    "blocked": "content_filter",
}


def calls_in(style: Style, completion: str) -> ToolCallStream:
    """Return a reader of the calls in an answer. Their ids derive from the answer's, so a stored answer always has the same."""
    numbers = count()
    return ToolCallStream(style, lambda: f"call_{digest_bytes(f'{completion} {next(numbers)}'.encode())[:24]}")


@dataclass
class GrowingReply:
    """One growing answer, words and calls apart."""

    calls_in: ToolCallStream | None  # reads calls out of the words; None where no tools were offered
    # Most calls; further ones are left out. None = no limit.
    most_calls: int | None = None
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    pictures: list[ImagePart] = field(default_factory=list)
    last: Chunk | None = None
    _made: CallsMade = field(default_factory=CallsMade)
    _whole: bool = False  # whether the last call is whole and nothing came after it

    def take(self, chunk: Chunk) -> tuple[str, list[ToolCall]]:
        """Take a chunk. Returns the new words and the newly completed calls."""
        pieces: list[str | ToolCall] = [chunk.text]
        if self.calls_in is not None:
            pieces = self.calls_in.feed(chunk.text)
            if chunk.finish:
                pieces += self._end(self.calls_in)
        calls = [piece for piece in pieces if isinstance(piece, ToolCall) and self._made.add(piece)]
        if self.most_calls is not None:
            calls = calls[: max(0, self.most_calls - len(self.calls))]
        text = "".join(piece for piece in pieces if isinstance(piece, str))
        if (calls or self.calls) and not text.strip():
            text = ""  # what stands between calls
        self.text.append(text)
        self.calls += calls
        self.logprobs += chunk.logprobs
        self.pictures += [part for part in chunk.media if isinstance(part, ImagePart)]
        self.last = chunk if chunk.finish else None
        return text, calls

    def _end(self, calls_in: ToolCallStream) -> list[str | ToolCall]:
        """Return the rest that was held back, except the beginning of a repeated call: an answer that was cut there lacks nothing."""
        after_call, rest = calls_in.after_call, calls_in.flush()
        repeated = after_call and all(isinstance(piece, str) and calls_in.repeats(piece) for piece in rest)
        self._whole = repeated or calls_in.after_call
        return [] if repeated else rest

    @property
    def finish(self) -> str | None:
        """OpenAI's finish reason; None while the answer goes on."""
        if self.last is None or self.last.finish is None:
            return None
        called = self.calls and (self.last.finish == "stop" or self._whole)
        return "tool_calls" if called else FINISH[self.last.finish]


def choice_id(first: str, number: int) -> str:
    """Return the id of a further answer to a request; `first`: the id that the client gets."""
    return f"{first}-{number}"


def most_calls(body: ChatBody | ResponsesBody) -> int | None:
    """Return the most calls that a request allows in an answer; None = no limit."""
    return 1 if body.parallel_tool_calls is False else None


def head(id_: str, kind: str, model: LanguageModel) -> dict[str, Any]:
    """Return the first fields of every answer and chunk."""
    fingerprint = f"fp_{model.digest[:16]}"
    return {"id": id_, "object": kind, "created": int(time.time()), "model": model.name, "system_fingerprint": fingerprint}


def usage_of(lasts: Sequence[Chunk]) -> dict[str, Any]:
    """Return the usage of all choices together. A prompt that they share counts once."""
    usages = [chunk.usage for chunk in lasts if chunk.usage]
    first = max(usages, key=lambda usage: usage.prompt_tokens - usage.cached_tokens, default=Usage(0, 0, 0, 0.0, 0.0, 0))
    written = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": first.prompt_tokens + written,
        "prompt_tokens_details": {
            "cached_tokens": first.cached_tokens,
            "image_tokens": first.image_tokens,
            "audio_tokens": first.audio_tokens,
        },
        "completion_tokens_details": drafts_of(usages),
        "energy": energy_of(lasts),
    }


def drafts_of(usages: Sequence[Usage]) -> dict[str, int]:
    """Return the counts of drafted tokens. Accepted ones are tokens of the answer; rejected ones are not, and cost nothing."""
    accepted = sum(usage.accepted for usage in usages)
    rejected = sum(usage.drafted for usage in usages) - accepted
    return {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected}


def energy_of(lasts: Sequence[Chunk]) -> dict[str, float | str] | None:
    """Return the energy of all answers, in joules; None if it was not metered."""
    parts: list[Energy] = [chunk.usage.energy for chunk in lasts if chunk.usage and chunk.usage.energy]
    return total(parts).table() if parts else None


def account_of(lasts: Sequence[Chunk]) -> dict[str, Any]:
    """Return Ingle's own field of a response: ledger events, model, seeds, times and ends; and for each answer, what guards said, and ids
    of the memories and lessons that acted on it, or of what was taught and came near."""
    events = [chunk.event for chunk in lasts if chunk.event]
    usages = [chunk.usage for chunk in lasts if chunk.usage]
    acted = {
        name: [str(event.facts.get(name, "")).split() for event in events]
        for name in ("memories", "lessons", "nearly")
        if any(name in event.facts for event in events)
    }
    return {
        "events": [event.facts.get("seq") for event in events],
        "model_digest": usages[0].model_digest if usages else None,
        "seeds": [usage.seed for usage in usages],
        "ended": [chunk.finish for chunk in lasts],
        "verdicts": [verdict_tables(chunk.verdicts) for chunk in lasts],
        "seconds": [{name: round(getattr(usage, f"{name}_s"), 4) for name in ("queued", "prefill", "decode")} for usage in usages],
        **acted,
    }
