"""What suites are made of: texts, questions and exercises; and which of them are for training, which are held out."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

Part = Literal["train", "held_out"]


class Item(Protocol):
    """What texts, questions and exercises have in common."""

    @property
    def id(self) -> str:
        """Its place in its data set."""
        ...

    @property
    def group(self) -> str:
        """Items with the same group are of one document: they are all for training, or all held out."""
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
    """What is read, without the answers."""
    options: tuple[str, ...]
    gold: int
    """Number of the right one."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """Something to be written."""

    id: str
    group: str
    ask: str
    """What the model is told, as a person's message."""
    reference: str
    baseline: str
    """What a simple rule writes."""


T = TypeVar("T", bound=Item)


def part_of(group: str, held_out: float) -> Part:
    """Where the items of a document belong, if a share of `held_out` of all documents is held out. Depends on nothing but its name."""
    return "held_out" if _place("part", group) < held_out else "train"


def part(items: Sequence[T], which: Part, held_out: float) -> list[T]:
    """The items of one part, shuffled by a fixed hash, so that the first n of them are a sample."""
    chosen = [item for item in items if part_of(item.group, held_out) == which]
    return sorted(chosen, key=lambda item: _place("order", item.id))


def draw_shots(items: Sequence[T], held_out: float, count: int, seed: int) -> list[T]:
    """`count` items of the training part, of as many documents, for examples in a prompt. The same for every item that is measured."""
    shots: dict[str, T] = {}
    for item in sorted(part(items, "train", held_out), key=lambda item: _place(f"shots {seed}", item.id)):
        if len(shots) == count:
            break
        shots.setdefault(item.group, item)
    return list(shots.values())


class Groups:
    """Which items belong together because they share something: a source, a paragraph, their words."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}
        self._holder: dict[str, str] = {}

    def add(self, member: str, shared: Iterable[str]) -> None:
        """Puts a member together with all that have one of these texts."""
        self._above.setdefault(member, member)
        for text in shared:
            other = self.of(self._holder.setdefault(text, member))
            # The smaller name stands for both, so that the order of adding doesn't matter.
            low, high = sorted((self.of(member), other))
            self._above[high] = low

    def of(self, member: str) -> str:
        """The name of a member's group."""
        while (above := self._above[member]) != member:
            self._above[member] = self._above[above]
            member = above
        return member


def _place(purpose: str, name: str) -> float:
    """A number in [0, 1) that looks drawn, and is the same on every machine and for ever."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{name}".encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
