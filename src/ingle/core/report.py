"""Measurements: each has an interval, its n, and the digests of the model and the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_INTERVAL = "none, from one item"
"""Stands in `Report.interval` where a figure rests on one item: `low` and `high` are then the figure itself."""


@dataclass(frozen=True, slots=True)
class Report:
    """One measured figure with its uncertainty."""

    name: str
    """The metric, e.g. `bits_per_byte`."""
    value: float
    unit: str
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """The number of items (documents, questions, runs) behind the figure."""
    model_digest: str
    data_digest: str
    interval: str = "95 % bootstrap"
    """The method for `low` and `high`."""
    seed: int | None = None


def shown_interval(figure: Mapping[str, Any], form: str = ".4f") -> str:
    """Return a figure's interval and n for people: `0.1200 … 0.3400, n = 8`. One item has no interval. `figure`: a `Report` as a table."""
    ends = "" if figure.get("interval") == NO_INTERVAL else f"{figure['low']:{form}} … {figure['high']:{form}}, "
    return f"{ends}n = {figure['n']}"
