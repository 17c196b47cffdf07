"""What the API's doors share: an answer as it grows, told as OpenAI tells it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.energy import Energy, total
from ingle.core.message import Chunk, Finish, TokenLogprob, ToolCall, Usage
from ingle.engine.language_model import LanguageModel
from ingle.engine.tool_calls import CallsMade, Style, ToolCallStream
from ingle.serve.schema import ChatBody, ResponsesBody

FINISH: Mapping[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "repetition": "length",
    "cancelled": "length",
    "deadline": "length",
    "blocked": "content_filter",
}
"""OpenAI has no word for an answer that was cut by the server; like one that met its limit, it is not whole. `ended` says which it was."""


def calls_in(style: Style, completion: str) -> ToolCallStream:
    """Reads calls out of an answer's words. Their ids follow from the answer's: one that is kept has the same whenever it is read."""
    numbers = count()
    return ToolCallStream(style, lambda: f"call_{digest_bytes(f'{completion} {next(numbers)}'.encode())[:24]}")


@dataclass
class Growing:
    """One answer as it comes: words and calls apart."""

    calls_in: ToolCallStream | None
    """Reads calls out of the words; None where no tools were offered."""
    most_calls: int | None = None
    """Further ones are left out; None = all are told."""
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    last: Chunk | None = None
    _made: CallsMade = field(default_factory=CallsMade)
    _whole: bool = False
    """Whether the last call is whole and nothing came after it."""

    def take(self, chunk: Chunk) -> tuple[str, list[ToolCall]]:
        """The words to show and the calls that are complete and new, now that this chunk has come."""
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
        self.last = chunk if chunk.finish else None
        return text, calls

    def _end(self, calls_in: ToolCallStream) -> list[str | ToolCall]:
        """What was held back. Not the beginning of a call that was made before: an answer that was cut there lacks nothing."""
        after_call, rest = calls_in.after_call, calls_in.flush()
        repeated = after_call and all(isinstance(piece, str) and calls_in.repeats(piece) for piece in rest)
        self._whole = repeated or calls_in.after_call
        return [] if repeated else rest

    @property
    def finish(self) -> str | None:
        """Why it ended, in OpenAI's words; None while it goes on."""
        if self.last is None or self.last.finish is None:
            return None
        made = self.calls and (self.last.finish == "stop" or self._whole)
        return "tool_calls" if made else FINISH[self.last.finish]


def choice_id(first: str, number: int) -> str:
    """Under which a further answer to a request is kept; `first`: the id that the client is told."""
    return f"{first}-{number}"


def most_calls(body: ChatBody | ResponsesBody) -> int | None:
    """How many calls an answer may hold by what the request says."""
    return 1 if body.parallel_tool_calls is False else None


def head(id_: str, kind: str, model: LanguageModel) -> dict[str, Any]:
    """What every answer and every chunk of one begins with."""
    fingerprint = f"fp_{model.digest[:16]}"
    return {"id": id_, "object": kind, "created": int(time.time()), "model": model.name, "system_fingerprint": fingerprint}


def usage_of(lasts: Sequence[Chunk]) -> dict[str, Any]:
    """What all choices took together; a prompt that they share counts once."""
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
    """What was guessed and read ahead. Accepted tokens are among those of the answer, rejected ones are not (nobody pays for them)."""
    accepted = sum(usage.accepted for usage in usages)
    rejected = sum(usage.drafted for usage in usages) - accepted
    return {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected}


def energy_of(lasts: Sequence[Chunk]) -> dict[str, float | str] | None:
    """What all of them took, in joules; None where nobody metered it."""
    parts: list[Energy] = [chunk.usage.energy for chunk in lasts if chunk.usage and chunk.usage.energy]
    return total(parts).table() if parts else None


def account_of(lasts: Sequence[Chunk]) -> dict[str, Any]:
    """Where these answers can be found in the ledger, what answered and ended them, how long it took; of what was taught, by ids, what
    acted on each. In Ingle's own field of a response."""
    events = [chunk.event for chunk in lasts if chunk.event]
    usages = [chunk.usage for chunk in lasts if chunk.usage]
    acted = {
        name: [str(event.facts.get(name, "")).split() for event in events]
        for name in ("memories", "lessons")
        if any(name in event.facts for event in events)
    }
    return {
        "events": [event.facts.get("seq") for event in events],
        "model_digest": usages[0].model_digest if usages else None,
        "seeds": [usage.seed for usage in usages],
        "ended": [chunk.finish for chunk in lasts],
        "verdicts": [event.facts["verdicts"] for event in events if "verdicts" in event.facts],
        "seconds": [{name: round(getattr(usage, f"{name}_s"), 4) for name in ("queued", "prefill", "decode")} for usage in usages],
        **acted,
    }
