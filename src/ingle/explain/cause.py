"""The words of an explanation: an answer, its possible causes, and what it loses without them.

The unit is always the same: nats by which the log-probability of the answer's tokens falls when a cause is left out. So sentences,
memories, lessons and deltas stand in one list.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingle.core.media import Vectors
from ingle.core.message import Chunk, Request
from ingle.engine.language_model import AnswerPlace, LanguageModel, ReadyPrompt
from ingle.explain.traces import WordTrace

Nats = npt.NDArray[np.float64]
# `sentence`: of the prompt. `memory`, `lesson`, `delta`: taught. `retrieval`, `recurrent`, `groups`: parts of a hybrid model.
Kind = Literal["sentence", "memory", "lesson", "delta", "retrieval", "recurrent", "groups"]


# Kinds of parts; the last one is the control: as many other groups by chance.
PARTS: tuple[Kind, ...] = ("retrieval", "recurrent", "groups")


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that an answer may rest on."""

    kind: Kind
    id: str  # a sentence's number in the prompt from 1, an example's id, a digest, or the name of a part
    text: str = ""  # its words, where it has any


@dataclass(frozen=True, slots=True)
class Variation:
    """The model and the request of an answer, without one of its causes. Whoever knows what acted makes it."""

    cause: Cause
    model: LanguageModel
    request: Request


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to explain, as the model wrote it."""

    model: LanguageModel
    request: Request  # as the model read it, memories and all
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]  # the text of each token; together they are the answer

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """The part of an answer that is explained, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reader:
    """How models are read and asked. Whoever runs them gives it: a terminal directly, a server beside its other answers."""

    # Returns the log-probabilities of the endings of each task, given the vectors of all pictures in them. Raises OutOfTime.
    score: Callable[[LanguageModel, Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], Vectors], Sequence[Sequence[Nats]]]
    # Returns the answers to requests, as their askers would see them. Raises OutOfTime.
    write: Callable[[Sequence[tuple[LanguageModel, Request]]], Sequence[str]]
    # Returns the places of an answer after its prompt, with the TOP likeliest tokens of each. Raises OutOfTime.
    places: Callable[[LanguageModel, ReadyPrompt, Sequence[int]], Sequence[AnswerPlace]]


TOP = 5  # tokens that are looked at beside each token of an answer


class OutOfTime(Exception):
    """The time for an explanation is over. What was proved so far stands."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Falls for as much left out at random."""

    mean: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(falls: Iterable[float]) -> "Chance | None":
        """Return the mean and range of falls; None if there are none."""
        values = [float(fall) for fall in falls]
        return Chance(sum(values) / len(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True, slots=True)
class ProvedCause:
    cause: Cause
    nats: float  # by so much the log-probability of the explained part falls without it
    nats_by_token: tuple[float, ...]  # its fall for each token of the whole answer
    by_chance: Chance | None  # falls without other sentences; None where there is nothing to compare with
    answer_without: str | None = None  # the answer that the model gives without it, by the same seed; None if it was not asked
    differs: bool = False  # whether that is another answer, in the explained part if one was named
    # How much of the fall without any of the prompt's sentences is left when only this one stays: 0 = it is enough by itself.
    alone: float | None = None
    says: str = ""  # the figures in plain words; see explain/words.py

    @property
    def stands_out(self) -> bool:
        """Whether the fall is above every random one, and large enough to mean something."""
        return self.nats >= LEAST_NATS and (self.by_chance is None or self.nats > self.by_chance.high)


LEAST_NATS = 0.5  # a fall below this is never called a cause: one of the answer's words has become at most 1.65 times less likely


@dataclass(frozen=True, slots=True)
class Together:
    causes: tuple[str, ...]  # their numbers
    necessity: float  # nats that the answer loses without all of them
    sufficiency: float  # nats that it loses with them alone: small = they are enough
    nothing: float  # nats that it loses without any sentence of the prompt but the question
    by_chance: Chance | None  # falls for random sets of as many sentences
    rest: float  # `necessity` less the falls of its single sentences: large = several say the same, and each alone can be missed
    answer_without: str | None = None
    differs: bool = False
    says: str = ""


@dataclass(frozen=True, slots=True)
class OtherToken:
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class SureToken:
    text: str
    probability: float
    others: tuple[OtherToken, ...]  # the likeliest others, the first one first; those below 1 in 100 are left out


@dataclass(frozen=True, slots=True)
class SureSignals:
    """Signs of how sure an answer is, that can be seen without knowing what is right."""

    mean: float  # mean log-probability of its tokens, in nats
    least: float  # the smallest of them
    entropy: float  # the largest entropy of a place, of its likeliest tokens, in nats
    # `mean` of the telling tokens: those of words that are neither in the question nor everywhere; of all where there are none.
    telling: float
    telling_least: float  # `least` of these
    telling_entropy: float  # `entropy` of these
    # Share of their nats that goes away with what the model was given: near 1 = without that, it would hardly have said so.
    explained: float
    tokens: int
    agreement: float | None = None  # share of answers drawn beside it that say the same; None if none were drawn


@dataclass(frozen=True, slots=True)
class Odds:
    """How often the model is right about questions like this."""

    p: float
    low: float
    high: float  # the ends of a 95 % interval
    n: int  # questions of this kind that were asked to find out
    right: int  # how many of them were answered right


@dataclass(frozen=True, slots=True)
class Sure:
    tokens: tuple[SureToken, ...]
    signals: SureSignals
    kind: str  # a kind of question of explain/odds.py; "" where nothing is asked
    odds: Odds | None  # none = not measured
    says: tuple[str, ...]  # odds and signals in plain words


@dataclass(frozen=True, slots=True)
class Why:
    answer: str
    span: AnswerSpan
    causes: tuple[ProvedCause, ...]  # the strongest first; sentences that don't stand out are left out, what was taught is always named
    together: Together | None
    says: tuple[str, ...]  # the explanation in plain words
    pieces: tuple[str, ...]  # the answer's tokens as text
    sentences: int  # sentences of the prompt, the question aside
    method: str  # how sentences were found: a file of explain/methods
    read_tokens: int
    complete: bool
    not_looked_at: tuple[str, ...] = ()  # left for lack of time
    elsewhere: tuple[str, str] | None = None  # (its name, the question's name) if the sentence that decides is about another one
    sure: Sure | None = None  # how sure it is, if that was asked
    traces: tuple[WordTrace, ...] = ()  # runs of its words that stand in a text that the model was taught or tuned on


def within(said: Said, span: AnswerSpan) -> npt.NDArray[np.bool_]:
    """Return which tokens have a character in the span. One that begins a character, and shows nothing yet, belongs where it stands."""
    inside, start, length = [], 0, len(said.text)
    for piece in said.pieces:
        end = start + len(piece)
        here = start < span.end and end > span.start if piece else span.start <= start < span.end or start == span.end == length
        inside.append(here)
        start = end
    return np.array(inside, bool)


def worded(found: ProvedCause, says: str) -> ProvedCause:
    return replace(found, says=says)


# The tokens of an answer. An explanation is of what the model wrote, not of a text that looks like it, so the answer is given again.


def said_by(model: LanguageModel, request: Request, chunks: Iterable[Chunk]) -> Said:
    """Return an answer from the engine's chunks; `request`: as the model read it. The token that ends it is none of its words."""
    tokens = [token for chunk in chunks for token in chunk.tokens]
    while tokens and tokens[-1] in model.tokenizer.eos_ids:
        tokens.pop()
    return Said(model, request, tuple(tokens), pieces_of(model, tokens))


def pieces_of(model: LanguageModel, tokens: Iterable[int]) -> tuple[str, ...]:
    """Return the text of each token. A character of several tokens belongs to the last of them."""
    stream = model.tokenizer.stream()
    pieces = [stream.feed(token) for token in tokens]
    if pieces:
        pieces[-1] += stream.flush()
    return tuple(pieces)
