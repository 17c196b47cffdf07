"""Budgets and prices: minutes, joules, money or operations, as people say them: 30min, 2h, 200kJ, 0.1kWh, 2EUR, 2e14flop.

No PyTorch is imported here: every command reads `[costs]` of config.toml.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ingle.core.energy import JOULES_PER_WH, Energy, amount
from ingle.core.errors import ConfigError

Unit = Literal["minutes", "joules", "money", "flops"]
_UNITS: dict[str, tuple[Unit, float]] = {
    "s": ("minutes", 1 / 60), "min": ("minutes", 1.0), "minutes": ("minutes", 1.0), "h": ("minutes", 60.0), "j": ("joules", 1.0),
    "kj": ("joules", 1e3), "mj": ("joules", 1e6), "wh": ("joules", JOULES_PER_WH), "kwh": ("joules", 1e3 * JOULES_PER_WH),
    "flop": ("flops", 1.0), "flops": ("flops", 1.0), "gflop": ("flops", 1e9), "tflop": ("flops", 1e12),
}  # fmt: skip
_TEXT = re.compile(r"\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*([A-Za-z€$]+)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prices:
    """Section `[costs]` of config.toml: what this machine costs its owner."""

    kwh: float = 0.30  # price of a kilowatt-hour
    hour: float = 0.0  # price of an hour of the machine; 0 for one's own
    currency: str = "EUR"

    def __post_init__(self) -> None:
        for name in ("kwh", "hour"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"costs.{name}", "must be 0 or more", getattr(self, name))

    def cost(self, seconds: float, energy: Energy, flops: float, core_seconds: float) -> "Cost":
        """Return the cost of so many seconds by the clock, and of one core in all."""
        minutes = seconds / 60
        return Cost(minutes, energy, minutes / 60 * self.hour + energy.wh / 1000 * self.kwh, flops, core_seconds / 60)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of some runs."""

    minutes: float  # minutes by the clock
    energy: Energy
    money: float
    flops: float = 0.0
    core_minutes: float = 0.0

    def table(self) -> dict[str, object]:
        """Return a table for JSON."""
        names = ("minutes", "core_minutes", "flops", "money")
        return {name: getattr(self, name) for name in names} | {"energy": self.energy.table()}


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of one kind."""

    unit: Unit
    amount: float
    currency: str = ""

    def spent(self, cost: Cost) -> float:
        """Return how much of the budget's kind something costs."""
        return cost.energy.joules if self.unit == "joules" else float(getattr(cost, self.unit))

    def said(self, value: float) -> str:
        """Return an amount of this kind, for people."""
        if self.unit == "joules":
            return amount(value)
        words = {"minutes": f"{value:.3g} min", "money": f"{value:.2g} {self.currency}", "flops": f"{value:.2g} FLOP"}
        return words[self.unit]

    def __str__(self) -> str:
        return self.said(self.amount)


def parse_budget(text: str, prices: Prices) -> Budget:
    """Read a budget. Raises ConfigError for an unknown unit, with the known ones."""
    found = _TEXT.fullmatch(text)
    if found:
        number, unit = float(found[1]), found[2]
        kind, factor = _UNITS.get(unit.lower(), ("money", 1.0))
        known = unit.lower() in _UNITS or unit.upper() == prices.currency.upper()
        if known and 0 < number < float("inf"):
            return Budget(kind, number * factor, prices.currency if kind == "money" else "")
    cure = f"For example 30min, 2h, 200kJ, 0.1kWh, 2{prices.currency} or 2e14flop."
    raise ConfigError("--budget", "must be a number above 0 with its unit", text, cure)
