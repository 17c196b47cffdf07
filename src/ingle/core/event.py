"""One fact for the ledger. Facts hold digests and figures, never the words of a conversation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Fact = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to this home."""

    kind: str
    """The act, as verb or `room.verb`: `pull`, `answer`, `delta.accept`."""
    subject: str = ""
    """The model, delta or key that it concerns."""
    facts: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))
    """Figures and digests; flat, so that a fact can be read and signed without interpretation."""


Sink = Callable[[Event], object]
"""Records a fact. Its return value is ignored."""
