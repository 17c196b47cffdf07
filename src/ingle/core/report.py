"""Measurements: each has an interval, its n, and the digests of the model and the data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Stands in `Report.interval` where a figure rests on one item: `low` and `high` are then the figure itself.
NO_INTERVAL = "none, from one item"


@dataclass(frozen=True, slots=True)
class Report:
    """One measured figure with its uncertainty."""

    # The metric, e.g. `bits_per_byte`.
    name: str
    value: float
    unit: str
    low: float  # lower end of the interval
    high: float  # upper end of the interval
    n: int  # the number of items (documents, questions, runs) behind the figure
    model_digest: str
    data_digest: str
    interval: str = "95 % bootstrap"  # the method for `low` and `high`
    seed: int | None = None


def shown_interval(figure: Mapping[str, Any], form: str = ".4f") -> str:
    """Return a figure's interval and n for people: `0.1200 … 0.3400, n = 8`. One item has no interval. `figure`: a `Report` as a table."""
    ends = "" if figure.get("interval") == NO_INTERVAL else f"{figure['low']:{form}} … {figure['high']:{form}}, "
    return f"{ends}n = {figure['n']}"


# One fact for the ledger. Facts hold digests and figures, never the words of a conversation.


Fact = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to this home."""

    kind: str  # the act, as verb or `room.verb`: `pull`, `answer`, `delta.accept`
    subject: str = ""  # the model, delta or key that it concerns
    # Figures and digests; flat, so that a fact can be read and signed without interpretation.
    facts: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))


# Records a fact. Its return value is ignored.
Sink = Callable[[Event], object]
