"""A language model: a backend with its tokenizer, its eye and its hand; and what it makes of an answer's places."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import CheckpointError, ContextError, DeltaError, NotLearnt, RequestError, TemplateError
from ingle.core.media import NO_VECTORS, ControlName, Picture, PictureLook, Sight, SightPiece, Vectors, vector_id
from ingle.core.message import Constraint, ImagePart, Message, Request, Sampling, TextPart
from ingle.core.state import STEP_TOKENS
from ingle.engine.adapter import Adapter, Addition
from ingle.engine.backend import Backend, Segment
from ingle.engine.delta_kinds import Change, additions_of
from ingle.engine.sampling import log_probabilities
from ingle.media.painter import MOST_LETTERS, WORDS, Hand, asks_to_paint, hand_of, knows, prompt_of, wish_of
from ingle.media.picture import pillow, read_picture
from ingle.model.template import THINKING, can_think, encode_chat, render
from ingle.model.tokenizer import HOLE, PICTURE, ControlToken, Tokenizer

if TYPE_CHECKING:
    from ingle.engine.grammar import Grammar, Vocabulary

# Pictures in a prompt: each becomes what the model's sight makes of it, and the vectors of that become ids beyond the vocabulary.


_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ReadyPrompt:
    """A request, ready to be read."""

    ids: list[int]
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)  # vectors that ids beyond the vocabulary stand for


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture, and what stands for it."""

    look: PictureLook
    pieces: tuple[SightPiece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its vectors."""
        return sum(piece.nbytes for piece in self.pieces if isinstance(piece, np.ndarray))


class Seer:
    """A sight that remembers what it saw lately, so that a picture's next turn neither decodes nor encodes it. Thread-safe."""

    def __init__(self, sight: Sight, budget_bytes: int = _KEPT_BYTES) -> None:
        self.sight, self._budget = sight, budget_bytes
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._lock = Lock()

    def knows(self, part: ImagePart) -> bool:
        """Return whether a picture was seen lately."""
        return digest_bytes(part.data) in self._seen

    def see(self, part: ImagePart, at: str, picture: Picture | None = None) -> Seen:
        """Return what stands for a picture; `at` names it in errors. `picture`: it, decoded already. Raises as `read_picture` and
        `Sight.see` do."""
        key = digest_bytes(part.data)
        with self._lock:  # one picture at a time: an encoder uses all cores as it is
            if key in self._seen:
                self._seen.move_to_end(key)
                return self._seen[key]
            picture = picture or read_picture(part.data, at)
            pieces = self.sight.see(picture)
            look = PictureLook(picture.digest, self.sight.digest, self.sight.fingerprint(picture, pieces))
            seen = self._seen[key] = Seen(look, pieces)
            while len(self._seen) > 1 and sum(one.nbytes for one in self._seen.values()) > self._budget:
                self._seen.popitem(last=False)
            return seen


def seen_prompt(
    tokenizer: Tokenizer, pieces: Sequence[str | ControlToken], seen: Sequence[Seen], sight: Sight, vocab_size: int
) -> ReadyPrompt:
    """Return the ids of a rendered conversation, with the pictures in their places, and the vectors behind these ids.

    Raises TemplateError for a template that doesn't write every picture once, CheckpointError for a sight that writes a control token which
    the model lacks.
    """
    places = [piece == PICTURE or (isinstance(piece, ControlToken) and piece.name == sight.marker) for piece in pieces]
    if sum(places) != len(seen):
        rule = f"writes {sum(places)} of {len(seen)} pictures"
        raise TemplateError("chat template", rule, "", "Send the picture with the last message, or choose another model.")
    shown, ids, vectors = iter(seen), list[int](), {}
    rows = list[int]()
    flat: list[str | ControlToken] = []
    for piece, is_place in zip(pieces, places, strict=True):
        if not is_place:
            flat.append(piece)
            continue
        picture, place = next(shown), 0
        for part in picture.pieces:
            if isinstance(part, str):
                flat.append(part)
            elif isinstance(part, ControlName):
                flat.append(_control(tokenizer, part.name))
            else:
                for vector in part:
                    id_ = vector_id(vocab_size, "image", sight.digest, picture.look.content, place)
                    vectors[id_], place = vector, place + 1
                    rows.append(id_)
                flat += [PICTURE] * len(part)
    after = iter(rows)
    ids = [next(after) if id_ == HOLE else id_ for id_ in tokenizer.encode_pieces(_joined(flat))]
    return ReadyPrompt(ids, vectors)


def _control(tokenizer: Tokenizer, name: str) -> ControlToken:
    if name not in tokenizer.control:
        raise CheckpointError(
            "tokenizer", f"The sight writes {name!r}, which is no control token of this model", "", "Pull the model again."
        )
    return ControlToken(name)


def _joined(pieces: Sequence[str | ControlToken]) -> Iterator[str | ControlToken]:
    """Yield the pieces with neighbouring words joined: a tokenizer reads them as one text."""
    for words, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if words:
            yield "".join(piece for piece in run if isinstance(piece, str))
        else:
            yield from run


# Each place of an answer that is given: the log-probability of its token, and the likeliest tokens there. One pass, nothing is written.


_ROWS = 32  # most rows of logits at once: each has a float64 per word of the vocabulary on the way


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    token: int
    nats: float  # log-probability of its token
    likeliest: tuple[tuple[int, float], ...]  # the likeliest tokens with their log-probabilities, the first one first


def places(
    backend: Backend,
    given: Sequence[int],
    answer: Sequence[int],
    count: int,
    stopped: Callable[[], bool] = lambda: False,
    adapter: Adapter | None = None,
    vectors: Vectors = NO_VECTORS,
) -> list[AnswerPlace]:
    """Return the places of an answer after its given tokens, with the `count` likeliest tokens of each; fewer places if it was stopped.

    `stopped` is asked before every step. Raises ContextError or RequestError for tokens that can't be read, ValueError if there are none.
    """
    found, steps = list[AnswerPlace](), places_in_steps(backend, given, answer, count, lambda: STEP_TOKENS, adapter, vectors)
    while not stopped() and (ready := next(steps, None)) is not None:
        found += ready
    return found


def places_in_steps(
    backend: Backend,
    given: Sequence[int],
    answer: Sequence[int],
    count: int,
    room: Callable[[], int],
    adapter: Adapter | None = None,
    vectors: Vectors = NO_VECTORS,
) -> Iterator[list[AnswerPlace]]:
    """Yield after every step of the backend the places that are ready: for whoever has other steps to take in between.

    `room`: the most tokens of the next step, at most STEP_TOKENS. Raises as `places` does.
    """
    if not given or not answer or not 0 < count <= backend.config.vocab_size:
        raise ValueError("an answer needs given tokens and tokens of its own, and at least one of the likeliest is asked for")
    ids, state = [*given, *answer[:-1]], backend.new_state()  # the last token predicts nothing
    first = len(given) - 1
    while (start := state.length) < len(ids):
        wanted = start >= first
        end = min(start + min(room(), _ROWS), len(ids)) if wanted else min(start + room(), first)
        [rows] = backend.forward([Segment(state, ids[start:end], "all" if wanted else "none", adapter, vectors)])
        yield _read(rows, answer[start - first : end - first], count) if wanted else []


def _read(rows: npt.NDArray[np.float32], tokens: Sequence[int], count: int) -> list[AnswerPlace]:
    values = log_probabilities(rows)
    best = np.argpartition(values, -count, axis=1)[:, -count:]
    found = []
    for row, token, few in zip(values, tokens, best, strict=True):
        ranked = sorted(map(int, few), key=lambda one, row=row: (-row[one], one))  # type: ignore[misc]
        found.append(AnswerPlace(token, float(row[token]), tuple((one, float(row[one])) for one in ranked)))
    return found


# Painting: an answer of 64 words of the painter's palette, written like any other answer, becomes a picture.
# The painter's low-rank addition acts beside the weights only while the model paints; a grammar allows words of the palette alone.


_LINEARS = "model.layers."
NO_PAINTER = "Run: ingle pull painter. In a conversation with smollm2 it is then used by itself; elsewhere name smollm2+painter."
USUAL = Sampling(temperature=0.5, top_p=0.9)  # sampling of pictures where nobody asks for another
_ALONE = 0.2  # temperature of a picture in a conversation


@dataclass(frozen=True)
class Painter:
    """How a model paints. Its tensors are read when the first picture is asked for. Thread-safe."""

    name: str  # the delta's name, for messages
    digest: str  # digest of all that a picture depends on beside the model's weights
    runner: Backend
    # Reads the delta's tensors, and the changes that stay beside the weights in any case.
    read: Callable[[], tuple[Mapping[str, npt.NDArray[Any]], Sequence[Change]]]
    # The things that it has learnt, by name, each with other words for it; empty where nobody wrote that down.
    things: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def _read(self) -> tuple[Mapping[str, npt.NDArray[Any]], Sequence[Change]]:
        return self.read()

    @cached_property
    def hand(self) -> Hand:
        """The decoder and its palette. Raises DeltaError for tensors that don't fit, HomeError for damaged ones."""
        hand = hand_of(self.name, self._read[0])
        if max(hand.palette) >= self.runner.config.vocab_size:
            raise DeltaError(f"delta {self.name}", "must have a palette of the model's own tokens", max(hand.palette))
        return hand

    @cached_property
    def adapter(self) -> Adapter:
        """The addition that acts while the model paints. Raises DeltaError for one that doesn't fit the weights."""
        tensors, beside = self._read
        own = {name: values for name, values in tensors.items() if name.startswith(_LINEARS)}
        additions: Mapping[str, Addition] = additions_of(self.runner.config, [*beside, Change(self.name, "lora", own)])
        return self.runner.adapter(additions, self.digest)

    @cached_property
    def grammar(self) -> Constraint:
        """The language of pictures: exactly so many words of the palette."""
        return Constraint("lark", f"start: <[{','.join(map(str, self.hand.palette))}]>{{{WORDS}}}")


def painting_request(model: "LanguageModel", what: str, style: str = "", sampling: Sampling = USUAL) -> Request:
    """Return the request for one picture. Raises RequestError for a model without a painter, or a wish that is empty, too long or not
    learnt; and the errors of reading the painter."""
    if model.painter is None:
        raise RequestError("model", f"{model.name} can't paint", "", NO_PAINTER)
    if not what.strip():
        raise RequestError("prompt", "must name what to draw", "nothing", "For example: a red apple.")
    if len(what) > MOST_LETTERS:
        raise RequestError("prompt", f"must have at most {MOST_LETTERS} characters to be painted", len(what), "Name one thing.")
    refuse_unlearnt(model.painter, what)
    prompt = prompt_of(what, style)
    return Request(prompt=prompt, constraint=model.painter.grammar, max_tokens=WORDS, modalities=("image",), sampling=sampling)


def as_drawing(model: "LanguageModel", request: Request) -> Request:
    """Return a conversation's request as one for a picture, where the model paints and its user asks for that; else the request itself."""
    if model.painter is None or not request.messages or "text" not in request.modalities:
        return request
    request = replace(request, modalities=tuple(name for name in request.modalities if name != "image"))
    if not asks_for_drawing(request):
        return request
    refuse_unlearnt(model.painter, wish_of(request.messages[-1].text)[0])
    sampling = replace(USUAL, temperature=_ALONE, seed=request.sampling.seed)  # one picture: no likeliest can be chosen of several
    return Request(request.messages, max_tokens=WORDS, modalities=("image",), sampling=sampling)


def refuse_unlearnt(painter: Painter, what: str) -> None:
    """Raise NotLearnt for a wish for none of the things that a painter has learnt: it would paint a blob."""
    if painter.things and not knows(painter.things, what):
        rule = f"The painter has learnt {len(painter.things)} things, and this is none of them"
        raise NotLearnt("prompt", rule, what, f"It draws: {', '.join(painter.things)}.")


def asks_for_drawing(request: Request) -> bool:
    """Return whether a conversation's user asks for a picture, and for no other form."""
    last = request.messages[-1] if request.messages else None
    free = "text" in request.modalities and not request.constraint and not request.tools
    return last is not None and last.role == "user" and free and asks_to_paint(last.text)


def lacks(model: "LanguageModel", request: Request) -> list[str]:
    """Return the kinds of deltas that a model would need for a request: to see its pictures, to draw what it asks for."""
    theirs = (message for message in request.messages if message.role != "assistant")
    shown = any(isinstance(part, ImagePart) for message in theirs for part in message.parts)
    wanted = {"sight": shown and model.seer is None, "painter": model.painter is None and asks_for_drawing(request)}
    return [kind for kind, lacking in wanted.items() if lacking]


def painted(model: "LanguageModel", text: str) -> Picture:
    """Return the picture that an answer of a painting model is. Raises DeltaError for a text that is none, RequestError for no painter."""
    if model.painter is None:
        raise RequestError("model", f"{model.name} can't paint", "", NO_PAINTER)
    return model.painter.hand.paint(model.tokenizer.encode(text))


def likeness(model: "LanguageModel", what: str, style: str, pictures: Sequence[Sequence[int]]) -> list[float]:
    """Return how likely each picture is after its prompt, in nats: the model's own judgement of how well it came off. `model`: the one that
    paints; `pictures`: 64 tokens each."""
    assert model.painter is not None, "only a painting model is asked"
    palette = np.array(model.painter.hand.palette)
    place = {int(token): code for code, token in enumerate(palette)}
    prompt = model.tokenizer.encode_prompt(prompt_of(what, style))
    sums = []
    for tokens in pictures:
        segment = Segment(model.backend.new_state(), [*prompt, *tokens][:-1], "all", model.adapter)
        [rows] = model.backend.forward([segment])
        logits = rows[-len(tokens) :][:, palette].astype(np.float64)  # a grammar allows no other words
        logits -= logits.max(1, keepdims=True)
        chosen = logits[np.arange(len(tokens)), [place[token] for token in tokens]]
        sums.append(float((chosen - np.log(np.exp(logits).sum(1))).sum()))
    return sums


# A language model: a backend with its tokenizer.


@dataclass(frozen=True)
class LanguageModel:
    """A backend and a tokenizer under one name."""

    name: str
    backend: Backend
    tokenizer: Tokenizer
    adapter: Adapter | None = None  # the adapter of this model, from `backend.adapter`; None = the backend's own weights
    adapter_digest: str = ""  # digest of the deltas behind the adapter
    seer: Seer | None = None  # the model's sight; None = it reads words alone
    painter: Painter | None = None  # how the model paints; None = it answers in words alone
    paints: bool = False  # whether this is the model while it paints; see `answering`

    @cached_property
    def digest(self) -> str:
        """Digest of all that the answer depends on beside the request: weights, their format, and deltas. A sight is no part of it: what it
        makes of a picture shows in the ids of the prompt."""
        return digest_json([self.backend.digest, self.adapter_digest]) if self.adapter_digest else self.backend.digest

    def answering(self, request: Request) -> "LanguageModel":
        """Return the model that answers a request: itself, or for a picture itself while it paints.

        Raises RequestError for a picture where it has no painter, ConfigError without Pillow, and the errors of reading a painter.
        """
        if request.modalities != ("image",) or self.paints:
            return self
        if self.painter is None:
            raise RequestError("modalities", f"{self.name} can't paint", "", NO_PAINTER)
        pillow()  # asked before anything is written, because a picture can't be shown without it
        return self._painting

    @cached_property
    def _painting(self) -> "LanguageModel":
        assert self.painter is not None, "asked before"
        painter = self.painter
        return replace(self, backend=painter.runner, adapter=painter.adapter, adapter_digest=painter.digest, paints=True)

    def encode(self, request: Request) -> list[int]:
        """Return the token ids of a request. Raises as `prompt` does."""
        return self.prompt(request).ids

    def prompt(self, request: Request) -> ReadyPrompt:
        """Return the token ids of a request, and the vectors that stand for its pictures.

        Raises RequestError if there are none, for an answer other than text, and for a picture that can't be read or that the model can't
        see; TemplateError if the template fails, ContextError if they leave no room for an answer.
        """
        if beyond := [name for name in request.modalities if name != ("image" if self.paints else "text")]:
            raise RequestError("modalities", f"must be text alone: {self.name} can't answer in {beyond[0]}", ", ".join(request.modalities))
        if self.paints and request.messages:
            prompt = ReadyPrompt(self.tokenizer.encode_prompt(prompt_of(*wish_of(request.messages[-1].text))))
        elif request.prompt is None:
            prompt = self._read_chat(request)
        else:
            prompt = ReadyPrompt(self.tokenizer.encode_prompt(request.prompt) if isinstance(request.prompt, str) else list(request.prompt))
        ids = prompt.ids
        if not ids:
            raise RequestError("prompt", "must hold at least one token", "an empty text", "Give some text to go on from.")
        context = self.backend.config.context_length
        if len(ids) + (request.max_tokens != 0) > context:
            rule = (
                f"The prompt has {len(ids)} tokens and leaves no room for an answer within the maximum context length of {context} tokens"
            )
            raise ContextError("prompt", rule, "", "Shorten the conversation, or start a new one.")
        return prompt

    def look(self, request: Request) -> PictureLook | None:
        """Return the look of the picture that was shown last; None if there is none, or the model can't see. Raises as `prompt` does."""
        shown = [part for message in request.messages for part in message.parts if isinstance(part, ImagePart)]
        return self.seer.see(shown[-1], "messages").look if shown and self.seer is not None else None

    def _read_chat(self, request: Request) -> ReadyPrompt:
        messages, tools = tuple(map(self._recalled, request.messages)), request.tools
        if tools or any(message.tool_calls or message.role == "tool" for message in messages):
            from ingle.engine.tools import with_tools

            messages, tools = with_tools(self.tokenizer, messages, tools)
        shown = [
            (part, f"messages[{i}].content[{j}]")
            for i, message in enumerate(messages)
            for j, part in enumerate(message.parts)
            if isinstance(part, ImagePart)
        ]
        switches = {THINKING: request.think}
        if not shown:
            return ReadyPrompt(encode_chat(self.tokenizer, messages, tools=tools, variables=switches))
        if self.seer is None:
            cure = "Run: ingle pull sight. For smollm2 it is then used by itself."
            raise RequestError("messages", f"{self.name} can't see pictures", "", cure)
        seen = [self.seer.see(part, at) for part, at in shown]
        pieces = render(self.tokenizer, messages, tools=tools, variables=switches)
        return seen_prompt(self.tokenizer, pieces, seen, self.seer.sight, self.backend.config.vocab_size)

    def _recalled(self, message: Message) -> Message:
        """Return a message without the words of a picture that was painted: the picture itself, or a note for a model that can't see."""
        if message.role != "assistant" or not any(isinstance(part, ImagePart) for part in message.parts):
            return message
        if self.seer is None:
            return replace(message, parts=(TextPart("(a picture)"),))
        return replace(message, parts=tuple(part for part in message.parts if isinstance(part, ImagePart)))

    def grammar(self, request: Request) -> "Grammar | None":
        """Return the grammar that constrains the answer, or None. Takes 0.2 s the first time, then milliseconds.

        Raises RequestError for a constraint that can't be enforced.
        """
        from ingle.engine.grammar import Grammar

        constraint = self.painter.grammar if self.paints and self.painter is not None else request.constraint
        return Grammar(self._vocabulary, constraint) if constraint else None

    @cached_property
    def _vocabulary(self) -> "Vocabulary":
        from ingle.engine.grammar import grammar_of

        return grammar_of(self.tokenizer, self.backend.config.vocab_size)

    def most_tokens(self, request: Request, prompt_tokens: int) -> int:
        """Return the most tokens that the answer may have: the request's limit, or the rest of the context."""
        room = self.backend.config.context_length - prompt_tokens
        return room if request.max_tokens is None else min(request.max_tokens, room)


def check_thinking(model: LanguageModel, wanted: bool, field: str) -> bool:
    """Return whether the model shall think aloud. Raises RequestError that names `field` where that is wanted and it can't."""
    if wanted and not can_think(model.tokenizer):
        raise RequestError(field, "This model can't think aloud: its chat template has no such switch", model.name, "Ask it without.")
    return wanted
