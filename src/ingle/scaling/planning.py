"""From a budget to a plan: the widest design whose runs, the foretold one included, cost no more than the budget.

A fourth size is worth more than a second seed (bench/scaling_fit.py), and longer runs more than more of them: so designs are tried from
the widest to the narrowest, and the first that fits is made as long as the budget and the text allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ingle.core.errors import ConfigError
from ingle.scaling.budget import Budget, Cost, Prices
from ingle.scaling.cost import Speed, cost_of
from ingle.scaling.prepared import Prepared
from ingle.scaling.runs import RunSettings
from ingle.scaling.sweep_settings import LEAST_STEPS, SweepSettings, foretold_of, runs_of, shorter

SHORTEST = 0.6
"""Least share of a design's lengths: before its models read too little, the next design's are smaller."""
_STEP = 0.97
"""Lengths are tried in steps of this factor."""


@dataclass(frozen=True, slots=True)
class Design:
    """Sizes, lengths and a foretold run that belong together; it has about four times the compute of the largest other run."""

    sizes: tuple[str, ...]
    tokens: tuple[int, ...]
    foretold_size: str
    foretold_tokens: int

    def settings(self, begun: SweepSettings) -> SweepSettings:
        """Return these settings with this design."""
        return replace(
            begun, sizes=self.sizes, tokens=self.tokens, foretold_size=self.foretold_size, foretold_tokens=self.foretold_tokens,
            more_seeds=min(begun.more_seeds, len(self.sizes)),
        )  # fmt: skip


DESIGNS = (
    Design(("2x64", "2x128", "3x128", "5x128"), (1_500_000, 3_000_000, 6_000_000), "6x192", 9_500_000),
    Design(("2x64", "2x128", "3x128"), (1_000_000, 2_000_000, 4_000_000), "4x192", 5_600_000),
)
"""Lengths of two tokens a parameter and more: with less, a model is still finding words, and its loss follows no such law (LOG.md)."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that fits, and its cost."""

    settings: SweepSettings
    sweep: Cost
    """Cost of the runs that the law is fitted to."""
    foretold: Cost
    """Cost of the foretold run."""

    @property
    def whole(self) -> Cost:
        """Cost of everything: the foretold run comes after the others."""
        names = ("minutes", "energy", "money", "flops", "core_minutes")
        return Cost(*(getattr(self.sweep, name) + getattr(self.foretold, name) for name in names))


@dataclass(frozen=True, slots=True)
class CostModel:
    """Cost of a token here, and how many trainings run side by side."""

    speeds: Mapping[str, Speed]
    workers: int
    prices: Prices

    @property
    def busy(self) -> float:
        """Times as long as on a quiet machine, when the sizes were timed: beside other programs."""
        return median(speed.busy for speed in self.speeds.values())

    def cost(self, runs: Sequence[RunSettings], prepared: Prepared) -> Cost:
        """Reckon what these runs cost."""
        return cost_of(runs, prepared, self.speeds, self.workers, self.prices)


def sizes_to_time(settings: SweepSettings, designs: Sequence[Design]) -> tuple[str, ...]:
    """Return the sizes whose speed a plan needs."""
    named = {size for design in designs for size in (*design.sizes, design.foretold_size)}
    return tuple(dict.fromkeys([*settings.sizes, settings.foretold_size, *sorted(named)]))


def fitted(settings: SweepSettings, budget: Budget, prepared: Prepared, machine: CostModel) -> Planned:
    """Return the widest design that the budget pays for. Raises ConfigError for a budget, or a text, that is too small for any."""
    least: Planned | None = None
    for design in DESIGNS:
        settings = design.settings(settings)
        share = min(_most_text(settings, prepared), 8.0)
        while share >= SHORTEST and share * min(settings.tokens) >= LEAST_STEPS * settings.batch_tokens:
            least = costed(shorter(settings, share), prepared, machine)
            if budget.spent(least.whole) <= budget.amount:
                return least
            share *= _STEP
    if least is None:
        want = DESIGNS[-1].foretold_tokens * SHORTEST / settings.epochs
        rule = f"must hold at least {want / 1e6:.1f}M tokens for the smallest plan"
        raise ConfigError("data.sources", rule, f"{prepared.tokens / 1e6:.2f}M", "Give more text, or set epochs above 1.")
    cost = budget.said(budget.spent(least.whole))
    raise ConfigError("--budget", "is too small for any plan", f"{budget}; the smallest takes {cost}", "Raise it.")


def refused(planned: Planned, budget: Budget) -> ConfigError | None:
    """Return the error of a plan that costs more than the budget."""
    spent = budget.spent(planned.whole)
    if spent <= budget.amount:
        return None
    cure = "Name fewer sizes or fewer tokens, or leave them out and let the budget choose."
    return ConfigError("this plan", f"costs {budget.said(spent)}, more than the budget of {budget}", "", cure)


def costed(settings: SweepSettings, prepared: Prepared, machine: CostModel) -> Planned:
    """Return a plan with its cost. Raises ConfigError where the text is too short."""
    foretold = foretold_of(settings, prepared)
    return Planned(settings, machine.cost(runs_of(settings, prepared), prepared), machine.cost([foretold], prepared))


def _most_text(settings: SweepSettings, prepared: Prepared) -> float:
    """The largest factor for all lengths at which the text still lasts."""
    longest = max(*settings.tokens, settings.foretold_tokens)
    return prepared.tokens * settings.epochs / (longest + settings.batch_tokens)


def cost_table(planned: Planned, machine: CostModel) -> dict[str, Any]:
    """Return what a plan costs, as a table for plan.json."""
    speeds = {size: {"tokens_per_s": 1 / one.seconds, "energy": one.energy.table()} for size, one in machine.speeds.items()}
    parts = {"sweep": planned.sweep, "foretold": planned.foretold, "whole": planned.whole}
    costs = {name: cost.table() for name, cost in parts.items()}
    return {"cost": costs, "workers": machine.workers, "speeds": speeds, "busy": round(machine.busy, 2)}
