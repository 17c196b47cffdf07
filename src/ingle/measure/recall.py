"""Recall of planted facts: a sentence somewhere in a long text, asked for again at its end. How much of the past can a model still say?

Three kinds of facts (a number, a name, a sentence) stand at depths spread evenly over texts of real news; none of them can be guessed.
The answer is written greedily and must begin with the planted words, letter by letter. Short benchmarks, and the loss on a text, hardly
notice when a model forgets (arXiv 2608.28444): this does.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingle.core.errors import ConfigError
from ingle.measure.items import Text
from ingle.model.tokenizer import Tokenizer

_PLACES = (
    "Aldmoor", "Brenwick", "Carrow", "Dunvale", "Eastmere", "Farholt", "Glenrow", "Harwick", "Inverly", "Jarrow", "Kelham", "Larkfield",
    "Merton", "Northwold", "Oakhurst", "Penrose", "Quarley", "Rothbury", "Selwick", "Thornby",
)  # fmt: skip
_THINGS = ("clock", "bridge", "garden", "lamp", "mill", "orchard", "piano", "stable", "tower", "well", "window", "workshop")
_FIRST = (
    "Agnes", "Bruno", "Clara", "Dorian", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Leon", "Martha", "Nils", "Olga",
    "Peter", "Rosa", "Simon", "Thea", "Viktor",
)  # fmt: skip
_LAST = (
    "Abbott", "Barlow", "Conway", "Dalton", "Ellery", "Foster", "Granger", "Holloway", "Ingram", "Jessop", "Keating", "Lomax", "Marlow",
    "Norris", "Osborne", "Palmer", "Radley", "Sawyer", "Thorne", "Whitby",
)  # fmt: skip
_HOW = ("old", "green", "quiet", "heavy", "golden", "narrow", "broken", "gentle", "hollow", "silver", "wooden", "bright")
_WHO = ("fox", "kettle", "ladder", "sailor", "barrel", "candle", "spider", "farmer", "pillow", "wagon", "raven", "needle")
_DOES = ("waits", "sings", "sleeps", "turns", "burns", "hides", "rests", "dances", "falls", "shines")
KINDS = ("number", "name", "sentence")


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence to plant."""

    kind: str
    said: str
    """The whole sentence."""
    asked: str
    """Its beginning, repeated at the end of the text."""
    answer: str
    """The words that must follow, without the space before them."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A fact planted in a text."""

    id: str
    group: str
    fact: Fact
    depth: float
    """Place of the fact: 0 = at the beginning, 1 = right before the question."""
    texts: tuple[str, ...]
    """Texts around the fact, used as far as they are needed."""
    length: int
    """Tokens of the whole, the question included."""


def make_fact(kind: str, draw: random.Random) -> Fact:
    """Make a fact of one of `KINDS`."""
    place, thing = draw.choice(_PLACES), draw.choice(_THINGS)
    if kind == "number":
        question, answer = f"The secret number of {place} is", str(draw.randrange(10000, 100000))
    elif kind == "name":
        question, answer = f"The keeper of the {thing} in {place} is called", f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    else:
        words = [draw.choice(words) for words in (_HOW, _WHO, _DOES, _HOW, _WHO)]
        question, answer = f"The note under the {thing} in {place} says that", "the {} {} {} beside the {} {}".format(*words)
    return Fact(kind, f"{question} {answer}.", question, answer)


def plant(texts: Sequence[Text], length: int, count: int, seed: int = 0) -> list[Planted]:
    """Plant `count` facts: every kind at every depth in turn, each in random texts. The same texts and seed give the same items."""
    if not texts:
        raise ConfigError("texts", "must be there to plant facts in", "none")
    items = []
    for i in range(count):
        draw = random.Random(f"{seed} {i}")
        kind = KINDS[i % len(KINDS)]
        depth = (i // len(KINDS) + 0.5) / -(-count // len(KINDS))
        chosen = tuple(texts[draw.randrange(len(texts))].text for _ in range(max(4, length // 64)))
        items.append(Planted(f"{length} {i}", f"{length} {i}", make_fact(kind, draw), depth, chosen, length))
    return items


def assemble(tokenizer: Tokenizer, item: Planted) -> tuple[list[int], list[int]]:
    """Tokens up to the question's end (`item.length` with the answer's), and the tokens of the answer.

    Raises ConfigError where the length has no room for the fact, or the texts are too short.
    """
    fact = item.fact
    question = tokenizer.encode(f"\n\n{fact.asked}")
    answer = tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(question) :]
    sentence = tokenizer.encode(f" {fact.said}")
    room = item.length - len(sentence) - len(question) - len(answer)
    if room < 1:
        raise ConfigError("length", f"must be at least {item.length - room + 1} tokens for this fact", item.length)
    text: list[int] = []
    for part in item.texts:
        if len(text) >= room:
            break
        text += tokenizer.encode(f"{part}\n\n")
    if len(text) < room:
        raise ConfigError("texts", f"must come to {room} tokens", len(text))
    text = text[-room:]
    place = _after_sentence(tokenizer, text, round(item.depth * room))
    return text[:place] + sentence + text[place:] + question, answer


def _after_sentence(tokenizer: Tokenizer, text: Sequence[int], place: int) -> int:
    """The end of a sentence nearest to a place; the place itself if there is none within 60 tokens."""
    ends: Callable[[int], bool] = lambda index: tokenizer.token_bytes(text[index - 1]).endswith(b".")  # noqa: E731
    near = sorted(range(max(1, place - 60), min(len(text), place + 60)), key=lambda index: abs(index - place))
    return next((index for index in near if ends(index)), place)


def is_recalled(written: str, fact: Fact) -> bool:
    """Whether an answer begins with the planted words."""
    return written.strip().startswith(fact.answer)
