"""A home's energy use, added up from its ledger: by day, model or activity."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ingle.core.energy import NOTHING, Energy, energy_in
from ingle.core.maker import makers
from ingle.energy.grid import PowerGrid

_ACTIVITIES = {
    "answer": "answers",
    "energy.label": "labels",
    "hear": "hearing",
    "speak": "speaking",
}
"""Activities by kind of fact; makers' activities are in their own files (core/makers)."""
Side = Literal["day", "model", "activity"]
SIDES: tuple[Side, ...] = ("day", "activity", "model")


@dataclass(frozen=True, slots=True)
class Deed:
    """One use of energy."""

    day: str
    """UTC, `2026-11-26`."""
    activity: str
    model: str
    """The model's name at the time."""
    energy: Energy | None
    """None if Ingle had no meter yet."""


@dataclass(frozen=True, slots=True)
class AccountLine:
    """The sum of several deeds."""

    name: str
    count: int
    unmetered: int
    """Deeds without a figure; they are not in `energy`."""
    energy: Energy

    def table(self, grid: PowerGrid | None) -> dict[str, Any]:
        """Return a table for JSON."""
        table = {"name": self.name, "count": self.count, "unmetered": self.unmetered, **self.energy.table()}
        table["wh"] = float(f"{self.energy.wh:.6g}")
        return table | ({"co2_g": [float(f"{grams:.4g}") for grams in grid.grams(self.energy)]} if grid else {})


def deed_of(at: str, kind: str, subject: str, facts: Mapping[str, Any]) -> Deed | None:
    """Return the energy use in a row of the ledger; None if there is none worth mentioning. `at`: UTC, ISO 8601."""
    maker = makers().get(kind)
    activity = maker.activity if maker else _ACTIVITIES.get(kind)
    return None if not activity else Deed(at[:10], activity, subject, energy_in(facts))


def add_up(deeds: Iterable[Deed], by: Side | None = None) -> list[AccountLine]:
    """Return one line for each day, model or activity, by name; without `by`, one line for all."""
    groups: dict[str, list[Deed]] = defaultdict(list)
    key: Callable[[Deed], str] = (lambda deed: str(getattr(deed, by))) if by else (lambda _: "all")
    for deed in deeds:
        groups[key(deed)].append(deed)
    return [_line(name, groups[name]) for name in sorted(groups)]


def days(deeds: Sequence[Deed]) -> list[AccountLine]:
    """Return a line for every day, those without any use included."""
    lines = {line.name: line for line in add_up(deeds, "day")}
    if not lines:
        return []
    first, last = (datetime.fromisoformat(name).replace(tzinfo=UTC) for name in (min(lines), max(lines)))
    names = [(first + timedelta(days=i)).date().isoformat() for i in range((last - first).days + 1)]
    return [lines.get(name, AccountLine(name, 0, 0, NOTHING)) for name in names]


def _line(name: str, deeds: Sequence[Deed]) -> AccountLine:
    whole = NOTHING
    for deed in deeds:
        whole = whole + (deed.energy or NOTHING)
    return AccountLine(name, len(deeds), sum(deed.energy is None for deed in deeds), whole)
