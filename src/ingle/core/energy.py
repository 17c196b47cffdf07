"""Energy in joules, with an interval and its source, so that an estimate is never shown as measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "model"  # first word of every source whose figure is calculated, not counted
JOULES_PER_WH = 3600.0
_FACTS = {"joules": "joules", "low": "joules_low", "high": "joules_high", "source": "energy_source"}


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy that something took."""

    joules: float
    low: float  # the least that it can have taken, as far as the source can know
    high: float  # the most that it can have taken
    # The meters: `rapl`, `nvml`, `battery`, `model`, `model, unknown CPU`; several are joined by ` + `. Empty = nothing was used.
    source: str

    @property
    def measured(self) -> bool:
        """Whether hardware counted every part of it."""
        return bool(self.source) and not any(part.startswith(MODEL) for part in self.source.split(" + "))

    @property
    def wh(self) -> float:
        """Energy in watt-hours."""
        return self.joules / JOULES_PER_WH

    def __add__(self, other: "Energy") -> "Energy":
        """Return the sum. Intervals add up, because a source errs in the same direction each time."""
        source = self.source if other.source in ("", self.source) else _joined((self.source, other.source))
        return Energy(self.joules + other.joules, self.low + other.low, self.high + other.high, source)

    def scaled(self, share: float) -> "Energy":
        """Return this energy times `share`."""
        return Energy(self.joules * share, self.low * share, self.high * share, self.source)

    def table(self) -> dict[str, float | str]:
        """Return a table for JSON. Six digits are more than any meter knows."""
        return {name: float(f"{getattr(self, name):.6g}") for name in ("joules", "low", "high")} | {"source": self.source}

    def facts(self) -> dict[str, float | str]:
        """Return flat values for a fact of the ledger."""
        table = self.table()
        return {name: table[key] for key, name in _FACTS.items()}

    def __str__(self) -> str:
        """Return text for people: `3.1 J (1.2 – 6.0 J, estimated: model)`."""
        how = "measured" if self.measured else "estimated"
        return f"{amount(self.joules)} ({amount(self.low)} – {amount(self.high)}, {how}: {self.source or 'nothing'})"


NOTHING = Energy(0.0, 0.0, 0.0, "")


def total(parts: Iterable[Energy]) -> Energy:
    """Return the sum of several energies."""
    whole = NOTHING
    for part in parts:
        whole = whole + part
    return whole


def energy_in(facts: Mapping[str, Any]) -> Energy | None:
    """Return the energy that `Energy.facts` put among other facts; None if there is none."""
    values = [facts.get(name) for name in _FACTS.values()]
    joules, low, high, source = values
    if source is None or any(value is None for value in values):
        return None
    return Energy(float(joules or 0), float(low or 0), float(high or 0), str(source))


def reported(part: Mapping[str, Any]) -> Energy | None:
    """Return the energy in a report (or part of one) that was saved as plain tables; None if it was not metered."""
    table = part.get("energy")
    return Energy(**table) if table and table.get("source") else None


def amount(joules: float) -> str:
    """Return joules as text for people: 0.42 J, 31 J, 4.2 kJ, 1.3 MJ."""
    for unit in ("J", "kJ", "MJ", "GJ"):
        if abs(joules) < 999.5 or unit == "GJ":
            break
        joules /= 1000
    digits = 0 if abs(joules) >= 99.5 else 1 if abs(joules) >= 9.95 else 2
    return f"{joules:.{digits}f} {unit}"


def _joined(sources: Iterable[str]) -> str:
    return " + ".join(sorted({part for source in sources for part in source.split(" + ") if part}))
