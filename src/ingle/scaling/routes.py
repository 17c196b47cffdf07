"""Routes: each way to spend a budget by training, as a size under some settings, with what a token costs and what it is worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError
from ingle.scaling.budget import Budget, Cost, Prices
from ingle.scaling.cost import Speed, cost_of
from ingle.scaling.evidence import ProbePair, differences, offset, speed_at
from ingle.scaling.interval import Fit
from ingle.scaling.ladder import LADDER, rung
from ingle.scaling.lever import TrainingLever, difference
from ingle.scaling.points import Floats, Place
from ingle.scaling.prepared import Prepared
from ingle.scaling.runs import RunSettings
from ingle.scaling.shape import config_of, parameters_of
from ingle.scaling.sweep_settings import LEAST_STEPS, SweepSettings, run_of


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known when advice is asked for."""

    name: str
    folder: Path
    """Folder of the sweep."""
    settings: SweepSettings
    prepared: Prepared
    texts: Mapping[str, Prepared]
    """Texts that probes read, by the name of their folder."""
    reports: Sequence[Mapping[str, Any]]
    """Finished runs of the sweep."""
    fit: Fit
    pairs: Sequence[ProbePair]
    """Probes of levers."""
    kept: Mapping[str, Mapping[str, Any]]
    """Reports of models that commands made, by lever, read on the sweep's held-out text."""
    prices: Prices

    @property
    def incumbent(self) -> Mapping[str, Any]:
        """Report of the best model that the sweep has now."""
        return min(self.reports, key=lambda report: float(report["loss"]))


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One size under one change of the settings."""

    settings: SweepSettings
    prepared: Prepared
    size: str
    parameters: int
    speed: Speed
    offset: Floats
    """Draws of the logarithm by which its loss differs from the law's."""
    prices: Prices

    @property
    def least(self) -> int:
        """Fewest tokens that are worth a run."""
        return LEAST_STEPS * self.settings.batch_tokens

    @property
    def most(self) -> int:
        """Most tokens that the text is enough for."""
        return int(self.prepared.tokens * self.settings.epochs) // self.settings.batch_tokens * self.settings.batch_tokens

    def run(self, tokens: int) -> RunSettings:
        """Return the run of so many tokens."""
        return run_of(self.settings, self.prepared, self.size, tokens, self.settings.first_seed)

    def cost(self, tokens: int) -> Cost:
        """Return the cost of that run on one core."""
        return cost_of([self.run(tokens)], self.prepared, {self.size: self.speed}, 1, self.prices)

    def place(self, tokens: int) -> Place:
        """Return where the law has that run."""
        return Place(self.parameters, tokens, tokens / self.settings.epochs if self.settings.epochs > 1 else 0.0)

    def line(self, budget: Budget) -> tuple[float, float]:
        """Return what a run costs in the budget's unit: at its start, and for each token."""
        if self.most < 2 * self.least:
            raise ConfigError(self.size, "wants more text than there is", f"{self.prepared.tokens:,} tokens")
        one, two = (budget.spent(self.cost(times * self.least)) for times in (1, 2))
        if two <= one:
            cure = "Give a budget in minutes, or set [costs] in config.toml."
            raise ConfigError("--budget", f"is in {budget.unit}, and the sweep's runs say nothing of that", "", cure)
        return 2 * one - two, (two - one) / self.least

    def tokens(self, budget: Budget, line: tuple[float, float], amount: float) -> int:
        """Return how many tokens so much buys, in whole steps; no more than there are. Raises ConfigError where it is too little."""
        start, each = line
        steps = math.floor((amount - start) / each / self.settings.batch_tokens)
        if steps < LEAST_STEPS:
            cure = f"Give {budget.said(start + each * self.least)} or more."
            raise ConfigError("--budget", f"buys {self.size} fewer than {LEAST_STEPS} steps", budget.said(amount), cure)
        return min(steps * self.settings.batch_tokens, self.most)

    def losses(self, fit: Fit, tokens: int) -> Floats:
        """Return draws of the loss to expect."""
        result: Floats = fit.samples([self.place(tokens)])[:, 0] * np.exp(self.offset)
        return result


def routes_of(outlook: Outlook, name: str, lever: TrainingLever) -> list[Route]:
    """Return the routes of a lever for which there is evidence."""
    best = outlook.incumbent
    sizes = {"same": [best["size"]], "others": _sizes(outlook, best["size"])}
    sizes["all"] = [*sizes["same"], *sizes["others"]]
    spread = differences(outlook.pairs, outlook.fit)
    rng = np.random.default_rng([3, *name.encode()])
    routes = []
    for settings in lever.changes(outlook.settings):
        changed = difference(outlook.settings, settings)
        pairs = [pair for pair in outlook.pairs if pair.lever == name and pair.changed == changed]
        if lever.needs_probe and not pairs:
            continue
        prepared = outlook.texts[pairs[0].prepared] if pairs else outlook.prepared
        drawn = offset(pairs, outlook.fit, spread, rng)
        for size in sizes[lever.sizes]:
            parameters = parameters_of(config_of(rung(size, settings.kind), prepared.vocabulary))
            routes.append(Route(settings, prepared, size, parameters, _speed(outlook, pairs, parameters), drawn, outlook.prices))
    return routes


def _sizes(outlook: Outlook, best: str) -> list[str]:
    named = dict.fromkeys((*outlook.settings.sizes, outlook.settings.foretold_size, *LADDER))
    return [size for size in named if size != best]


def _speed(outlook: Outlook, pairs: Sequence[ProbePair], parameters: int) -> Speed:
    own = speed_at(outlook.reports, parameters)
    seconds, joules = (float(np.median([getattr(pair, name) for pair in pairs] or [1.0])) for name in ("seconds", "joules"))
    return Speed(own.seconds * seconds, own.energy.scaled(joules))
