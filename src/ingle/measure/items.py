"""Items of suites: texts, questions and exercises; and which of them are for training, which are held out."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Part = Literal["train", "held_out"]


class Item(Protocol):
    """The common part of texts, questions and exercises."""

    @property
    def id(self) -> str:
        """Name of the item in its data set."""
        ...

    @property
    def group(self) -> str:
        """Name of its document. Items of one group are all for training, or all held out."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A document, exactly as it is."""

    id: str
    group: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question with answers to choose from."""

    id: str
    group: str
    ask: str
    """The question, without the answers."""
    options: tuple[str, ...]
    gold: int
    """Number of the right option."""
    about: str = ""
    """The kind of question, where a suite has several: figures are given for each."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """A writing task with a reference answer."""

    id: str
    group: str
    ask: str
    """The user's message to the model."""
    reference: str
    baseline: str
    """Answer of a simple rule."""


SUM, PER_BYTE, PMI = "stereotype", "stereotype_per_byte", "stereotype_pmi"
"""Names of the main figure of pairs, by the rules of `measure.pairs`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Texts that may follow something; see `measure.pairs` and `measure.names` for which is which."""

    id: str
    group: str
    about: str
    """The group of people that it concerns: figures are given for each."""
    given: str
    """The text before them; "" for none."""
    texts: tuple[str, ...]


T = TypeVar("T", bound=Item)


def part_of(group: str, held_out: float) -> Part:
    """The part of a document's items, if a share of `held_out` of all documents is held out. It depends on nothing but the name."""
    return "held_out" if _place("part", group) < held_out else "train"


def part(items: Sequence[T], which: Part, held_out: float) -> list[T]:
    """The items of one part, shuffled by a fixed hash, so that the first n of them are a sample."""
    chosen = [item for item in items if part_of(item.group, held_out) == which]
    return sorted(chosen, key=lambda item: order_of(item.id))


def order_of(name: str) -> float:
    """Return the place of an item among others, shuffled by a fixed hash."""
    return _place("order", name)


def draw_shots(items: Sequence[T], held_out: float, count: int, seed: int) -> list[T]:
    """Draw `count` items of the training part, of as many documents, as examples in a prompt. They are the same for every measured item."""
    shots: dict[str, T] = {}
    for item in sorted(part(items, "train", held_out), key=lambda item: _place(f"shots {seed}", item.id)):
        if len(shots) == count:
            break
        shots.setdefault(item.group, item)
    return list(shots.values())


class Groups:
    """Groups of items that share something: a source, a paragraph, their words."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}
        self._holder: dict[str, str] = {}

    def add(self, member: str, shared: Iterable[str]) -> None:
        """Put a member into one group with all that have one of these texts."""
        self._above.setdefault(member, member)
        for text in shared:
            other = self.of(self._holder.setdefault(text, member))
            # The smaller name stands for both, so that the order of adding doesn't matter.
            low, high = sorted((self.of(member), other))
            self._above[high] = low

    def of(self, member: str) -> str:
        """Name of a member's group."""
        while (above := self._above[member]) != member:
            self._above[member] = self._above[above]
            member = above
        return member


def _place(purpose: str, name: str) -> float:
    """A number in [0, 1) that looks random, and is the same on every machine and for ever."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{name}".encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
