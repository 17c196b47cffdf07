"""Cost and budget of a sweep: steps are timed, and the widest design that the budget pays is planned."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from ingle.core.config import to_table
from ingle.core.energy import NOTHING, Energy, total
from ingle.core.errors import ConfigError
from ingle.scaling.budget import Budget, Cost, Prices
from ingle.scaling.interval import fit_points
from ingle.scaling.points import Point
from ingle.scaling.runners.local import run_jobs
from ingle.scaling.sweep_settings import LEAST_STEPS, RunSettings, SweepSettings, climb_flops, climbs_of, foretold_of, runs_of, shorter
from ingle.scratch.text_sources import Prepared

# Cost of a sweep: a few steps of each size are timed, on as many cores as will train, and all runs are reckoned from that.


START_S = 4.0  # seconds until a process trains: PyTorch's import, and the text
READ_SPEED = 2.5  # held-out text is read in float32 so many times as fast as text is learnt from in bf16


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of a token in training at one size."""

    seconds: float  # of computing, with one thread: what a quiet machine takes
    energy: Energy
    wall: float = 0.0  # seconds by the clock when it was timed, beside whatever else ran; 0 where nobody looked

    @property
    def busy(self) -> float:
        """Times as long as on a quiet machine, when it was timed."""
        return max(1.0, self.wall / self.seconds)


def measure_speeds(prepared: Prepared, runs: Sequence[RunSettings], workers: int) -> dict[str, Speed]:
    """Time a few steps of each size among these runs, on as many cores as will train. Raises TrainError, Interrupted."""
    sizes = list({run.size: run for run in runs}.values())
    heard: dict[str, list[Speed]] = {run.size: [] for run in sizes}

    def hear(_number: int, header: dict[str, Any], _data: bytes) -> None:
        if header["kind"] == "time":
            heard[header["size"]].append(Speed(header["seconds_per_token"], Energy(**header["energy"]), header["wall_per_token"]))

    job = {"call": "time", "runs": to_table(sizes), "prepared": prepared.folder}
    run_jobs([job] * workers, workers, hear, lambda: False)
    return {size: _mean(speeds) for size, speeds in heard.items()}


def cost_of(runs: Sequence[RunSettings], prepared: Prepared, speeds: Mapping[str, Speed], workers: int, prices: Prices) -> Cost:
    """Reckon what these runs cost: climbs go to the workers, the longest first, as the sweep deals them out."""
    loads = [0.0] * workers
    energy, flops = NOTHING, 0.0
    for climb in climbs_of(runs):
        seconds, used = _climb_cost(climb, prepared, speeds[climb[0].size])
        least = min(range(workers), key=lambda i: loads[i])
        loads[least] += seconds
        energy, flops = energy + used, flops + climb_flops(climb)
    return prices.cost(max(loads), energy, flops, sum(loads))


def _climb_cost(climb: Sequence[RunSettings], prepared: Prepared, speed: Speed) -> tuple[float, Energy]:
    learnt = climb_flops(climb) / (6 * climb[0].parameters)
    read = len(climb) * (prepared.held_out_bytes / 3) / READ_SPEED
    seconds = START_S + (learnt + read) * speed.seconds
    return seconds, speed.energy.scaled(learnt + read)


def _mean(speeds: Sequence[Speed]) -> Speed:
    energy = total(speed.energy for speed in speeds).scaled(1 / len(speeds))
    seconds, wall = (sum(getattr(speed, name) for speed in speeds) / len(speeds) for name in ("seconds", "wall"))
    return Speed(seconds, energy, wall)


# From a budget to a plan: the widest design whose runs, the foretold one included, cost no more than the budget.
# A fourth size is worth more than a second seed (bench/scaling_fit.py), and longer runs more than more of them: so designs are tried from
# the widest to the narrowest, and the first that fits is made as long as the budget and the text allow.


SHORTEST = 0.6  # least share of a design's lengths: before its models read too little, the next design's are smaller
_STEP = 0.97  # lengths are tried in steps of this factor


@dataclass(frozen=True, slots=True)
class Design:
    """Sizes, lengths and a foretold run that belong together; it has about four times the compute of the largest other run."""

    sizes: tuple[str, ...]
    tokens: tuple[int, ...]
    foretold_size: str
    foretold_tokens: int

    def settings(self, begun: SweepSettings) -> SweepSettings:
        return replace(
            begun, sizes=self.sizes, tokens=self.tokens, foretold_size=self.foretold_size, foretold_tokens=self.foretold_tokens,
            more_seeds=min(begun.more_seeds, len(self.sizes)),
        )  # fmt: skip


# Lengths of two tokens a parameter and more: with less, a model is still finding words, and its loss follows no such law (LOG.md).
DESIGNS = (
    Design(("2x64", "2x128", "3x128", "5x128"), (1_500_000, 3_000_000, 6_000_000), "6x192", 9_500_000),
    Design(("2x64", "2x128", "3x128"), (1_000_000, 2_000_000, 4_000_000), "4x192", 5_600_000),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that fits, and its cost."""

    settings: SweepSettings
    sweep: Cost  # cost of the runs that the law is fitted to
    foretold: Cost  # cost of the foretold run

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


# How sure a law will be, said before a single run: the sweep is simulated, and the width of its prediction measured.


NOISE = 0.006  # spread of one run around the law, relative to its loss, as these sweeps have it (docs/scaling.md)
# A law like those that these sweeps gave, in bits per byte: floor, and factor and exponent of parameters and of tokens.
_FLOOR, _SIZE, _DATA = 0.9, (9.0, 0.25), (14.0, 0.25)
_ROUNDS = 5


def expected_width(settings: SweepSettings, prepared: Prepared) -> float:
    """Return the width of the prediction's 90 % interval to expect, relative to the loss: the median of a few simulated sweeps."""
    runs, foretold = runs_of(settings, prepared), foretold_of(settings, prepared)
    draw, widths = np.random.default_rng(0), []
    for _ in range(_ROUNDS):
        kicks = np.exp(NOISE * draw.standard_normal(len(runs)))
        points = [
            Point(run.parameters, run.tokens, _loss(run) * float(kick), run.unique, run.train.seed)
            for run, kick in zip(runs, kicks, strict=True)
        ]
        [said] = fit_points(points).predict([foretold.place])
        widths.append((said.high - said.low) / said.loss)
    return statistics.median(widths)


def _loss(run: RunSettings) -> float:
    loss: float = _FLOOR + _SIZE[0] * run.parameters ** -_SIZE[1] + _DATA[0] * run.tokens ** -_DATA[1]
    return loss


# Cost of a token with a lever and without, timed in one sitting: a machine is busier in one hour than in the next.


TIMES = 3  # times that each run is timed, in turn with the others
Timed = tuple[RunSettings, Prepared]


def relative_costs(without: Timed, others: Sequence[Timed]) -> list[tuple[float, float]]:
    """Return (seconds, joules) of a token of each other run, as multiples of those of the run without a lever. Raises TrainError."""
    texts = dict[str, list[RunSettings]]()
    for run, prepared in (without, *others):
        texts.setdefault(prepared.folder, []).append(run)
    orders = list(texts.values())
    heard: dict[str, list[tuple[float, float]]] = {}
    counts = [0] * len(orders)

    def hear(number: int, header: dict[str, Any], _data: bytes) -> None:
        if header["kind"] == "time":
            run = orders[number][counts[number] % len(orders[number])]
            counts[number] += 1
            heard.setdefault(run.key, []).append((header["seconds_per_token"], header["energy"]["joules"]))

    jobs = [{"call": "time", "runs": to_table(runs * TIMES), "prepared": text} for text, runs in texts.items()]
    run_jobs(jobs, 1, hear, lambda: False)
    seconds, joules = ({key: statistics.median(value[i] for value in values) for key, values in heard.items()} for i in (0, 1))
    key = without[0].key
    return [(seconds[run.key] / seconds[key], joules[run.key] / joules[key] if joules[key] else 1.0) for run, _ in others]
