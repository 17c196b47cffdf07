"""Questions and answers: messages, requests, chunks of an answer, and a guard's verdict on them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ingle.core.energy import Energy
from ingle.core.errors import RequestError
from ingle.core.report import Event

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
# Where a part of a message comes from. A message's speaker vouches for its own words, not for what it quotes: a memory, a document.
Origin = Literal["system", "user", "assistant", "tool", "memory", "document"]
ORIGINS: tuple[Origin, ...] = (*ROLES, "memory", "document")
Modality = Literal["text", "image", "audio"]  # kinds of content that an answer may consist of


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str
    origin: Origin | None = None  # where they come from; None = from whoever speaks


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An encoded image (PNG, JPEG, …) with its media type."""

    data: bytes
    media_type: str
    origin: Origin | None = None  # where it comes from; None = from whoever speaks

    @property
    def url(self) -> str:
        """The image as a `data:` URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class AudioPart:
    """An encoded recording (WAV, …) with its media type."""

    data: bytes
    media_type: str
    origin: Origin | None = None  # where it comes from; None = from whoever speaks


MediaPart = ImagePart | AudioPart
Part = TextPart | MediaPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks to have called."""

    id: str
    name: str
    arguments: str  # JSON, as the model wrote it


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()  # calls that an assistant's turn asked for
    tool_call_id: str = ""  # the call that a tool's turn answers

    @staticmethod
    def of(role: Role, text: str) -> "Message":
        """A message of words only. Raises RequestError for an unknown role."""
        if role not in ROLES:
            raise RequestError("role", f"must be one of {', '.join(ROLES)}", role)
        return Message(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """The words of this message, in order."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart))

    @property
    def sourced(self) -> tuple[Part, ...]:
        """Its parts, each with its origin spelled out: for whoever puts them into a message of another role."""
        return tuple(part if part.origin else replace(part, origin=self.role) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Filters apply in the order of the fields; temperature 0 is greedy."""

    repetition_penalty: float = 1.0  # divides positive and multiplies negative logits of tokens already seen (arXiv 1909.05858); 1 = off
    # How many of the answer's last tokens `repetition_penalty` looks at; what is copied from the prompt, grammars, tool calls and code are
    # spared then. 0 = at all of the answer and the prompt, and everywhere.
    repetition_window: int = 0
    presence_penalty: float = 0.0  # subtracted once from the logit of each token already generated, −2 to 2
    frequency_penalty: float = 0.0  # subtracted per occurrence from the logit of each token already generated, −2 to 2
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit, −100 to 100)
    temperature: float = 0.0  # divides the logits; 0 picks the largest
    top_k: int = 0  # keeps the k most likely; 0 = all
    top_p: float = 1.0  # keeps the smallest set of most likely tokens whose probability reaches p (arXiv 1904.09751)
    min_p: float = 0.0  # keeps tokens at least min_p times as likely as the likeliest (arXiv 2407.01082)
    seed: int | None = None  # same seed, model and request → same answer; None draws one
    # The answer ends once so many tokens in a row say only what it said three times before; 0 = never. See engine/decoding.py.
    repeat_limit: int = 0

    def __post_init__(self) -> None:
        limits = {
            "temperature": (0.0, 100.0),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "top_k": (0, 2**31 - 1),
            "repetition_penalty": (0.01, 100.0),
            "repetition_window": (0, 65536),
            "repeat_limit": (0, 2**31 - 1),
            "presence_penalty": (-2.0, 2.0),
            "frequency_penalty": (-2.0, 2.0),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN fails every comparison, so it is caught too
                raise RequestError(name, f"must be between {low} and {high}", value)
        for token, bias in self.logit_bias:
            if token < 0 or not -100.0 <= bias <= 100.0:
                raise RequestError("logit_bias", "must map token ids to values between -100 and 100", f"{token}: {bias}")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A language that the answer must belong to."""

    kind: Literal["json_schema", "json_object", "lark", "regex"]
    source: str = ""  # the schema as JSON, the Lark grammar, or the regular expression; empty for `json_object`


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the engine: messages to go on from, or a plain prompt."""

    messages: tuple[Message, ...] = ()  # the conversation, rendered by the model's chat template
    prompt: str | tuple[int, ...] | None = None  # plain text (or token ids) to continue, without a template; excludes `messages`
    tools: tuple[Mapping[str, Any], ...] = ()  # functions that the model may ask for, in OpenAI's shape, rendered by the chat template
    constraint: Constraint | None = None  # the language that the answer must belong to; None = any text
    echo: bool = False  # whether the log-probabilities of the prompt's tokens are reported too, in the first chunk; needs `logprobs`
    max_tokens: int | None = None  # most tokens to generate; None = up to the context; 0 = read the prompt only
    stop: tuple[str, ...] = ()  # the answer ends before the first of these strings
    # Kinds of content that the answer may consist of. A model that can't make one of them refuses the request.
    modalities: tuple[Modality, ...] = ("text",)
    think: bool = False  # whether a model that can think aloud does so before it answers
    logprobs: int | None = None  # how many alternatives to report per token; 0 = only the chosen one; None = no log-probabilities
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if (self.prompt is None) == (not self.messages):
            raise RequestError("messages", "Give either messages or a prompt", "both" if self.messages else "neither")
        if self.max_tokens is not None and self.max_tokens < (self.prompt is None):
            raise RequestError("max_tokens", f"must be at least {int(self.prompt is None)}", self.max_tokens)
        if self.logprobs is not None and not 0 <= self.logprobs <= 20:
            raise RequestError("logprobs", "must be between 0 and 20", self.logprobs)
        if self.echo and self.logprobs is None:
            raise RequestError("echo", "needs logprobs", "none")
        if any(not s for s in self.stop):
            raise RequestError("stop", "must not hold an empty string", self.stop)
        if not self.modalities:
            raise RequestError("modalities", "must name one at least", "none")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of one token, of the untempered distribution, in nats."""

    token: int
    text: str
    logprob: float | None  # none for what nothing predicts: the very first token of an echoed prompt, and what is no word
    top: tuple[tuple[int, str, float], ...] = ()  # alternatives, likeliest first: (token id, text, log-probability)


Finish = Literal["stop", "length", "repetition", "cancelled", "deadline", "blocked"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of an answer: tokens, seconds, bytes, joules."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float  # seconds spent reading the prompt
    decode_s: float  # seconds spent writing the answer
    state_bytes: int  # bytes of the sequence's state when it ended
    queued_s: float = 0.0  # seconds spent waiting for a place
    model_digest: str = ""  # of the model that answered: base, deltas and format
    seed: int = 0  # with which the tokens were drawn; the one asked for, or the one that was drawn in its place
    drafted: int = 0  # tokens that were guessed and read beside the last one; see engine/speculative.py
    accepted: int = 0  # of these, how many came true
    # Energy of this answer, of all that was taken while it was read and written; None where nobody metered it.
    energy: Energy | None = None
    image_tokens: int = 0  # of the prompt's tokens, those that stand for parts of pictures
    audio_tokens: int = 0  # of the prompt's tokens, those that stand for parts of sounds


@dataclass(frozen=True, slots=True)
class Verdict:
    """A guard's finding about a request or a chunk."""

    action: Literal["allow", "edit", "block"]
    reason: str = ""
    guard: str = ""
    # The part of the policy that was met: a kind, a topic, the number of a word; never words. Empty = the form of a text was judged, not
    # its content.
    rule: str = ""
    score: float | None = None  # how sure the guard is, where it judges by degrees
    threshold: float | None = None  # the score from which it acts
    mode: str = ""  # the mode of the guard; whoever calls the guard fills it in


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. `text` is whole characters, never part of a stop string; `finish` is set on the last chunk only."""

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    verdicts: tuple[Verdict, ...] = ()  # verdicts of guards, since the chunk before; with a server's last chunk, all that they said
    event: Event | None = None  # the fact that this answer left in the ledger; set on the last chunk, by whoever recorded it
    media: tuple[MediaPart, ...] = ()  # pictures, and pieces of sound, that come with the text
