"""Painting: an answer of 64 words of the painter's palette, written like any other answer, becomes a picture.

The painter's low-rank addition acts beside the weights only while the model paints; a grammar allows words of the palette alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import DeltaError, NotLearnt, RequestError
from ingle.core.media import Picture
from ingle.core.message import Constraint, ImagePart, Request, Sampling
from ingle.engine.adapter import Addition
from ingle.engine.backend import Segment
from ingle.engine.cpu import CpuBackend
from ingle.engine.delta_kinds import Change, additions_of
from ingle.media.painter import MOST_LETTERS, WORDS, Hand, asks_to_paint, hand_of, knows, prompt_of, wish_of

if TYPE_CHECKING:
    from ingle.engine.language_model import LanguageModel

_LINEARS = "model.layers."
NO_PAINTER = "Run: ingle pull painter. In a conversation with smollm2 it is then used by itself; elsewhere name smollm2+painter."
USUAL = Sampling(temperature=0.5, top_p=0.9)
"""Sampling of pictures where nobody asks for another."""
_ALONE = 0.2
"""Temperature of a picture in a conversation."""


@dataclass(frozen=True)
class Painter:
    """How a model paints. Its tensors are read when the first picture is asked for. Thread-safe."""

    name: str
    """The delta's name, for messages."""
    digest: str
    """Digest of all that a picture depends on beside the model's weights."""
    runner: CpuBackend
    read: Callable[[], tuple[Mapping[str, npt.NDArray[Any]], Sequence[Change]]]
    """Reads the delta's tensors, and the changes that stay beside the weights in any case."""
    things: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The things that it has learnt, by name, each with other words for it; empty where nobody wrote that down."""

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
    def adapter(self) -> Any:
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
