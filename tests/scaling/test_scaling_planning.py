"""Plans: the widest design that a budget pays for, its cost, and budgets in words."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ingle.core.config import to_table
from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.home.place import Home
from ingle.scaling.budget import Budget, Prices, parse_budget
from ingle.scaling.cost import DESIGNS, SHORTEST, CostModel, Speed, cost_table, costed, fitted, refused, sizes_to_time
from ingle.scaling.sweep_settings import SweepSettings, runs_of
from ingle.scaling.sweep_worker import perform
from ingle.scratch.text_sources import Prepared, prepare
from ingle.train.loop_settings import TrainWatch
from tests.scaling.sweeps import tiny_sweep

TEXT = Prepared("nowhere", "0" * 64, 512, 128, 10_000_000, 300_000, 700)


def model(workers: int = 2) -> CostModel:
    """A machine on which a token takes as many seconds as its model has parameters, times 1e-10."""
    settings = SweepSettings()
    sizes = sizes_to_time(settings, DESIGNS)
    speeds = {}
    for size in sizes:
        number = float(size.split("x")[0]) * float(size.split("x")[1]) ** 2 * 12
        speeds[size] = Speed(number * 1e-10, Energy(number * 1e-9, number * 5e-10, number * 2e-9, "model"))
    return CostModel(speeds, workers, Prices(kwh=0.4, hour=1.0))


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("30min", "minutes", 30), ("2h", "minutes", 120), ("90s", "minutes", 1.5), ("200kJ", "joules", 2e5), ("0.1kWh", "joules", 3.6e5),
        ("2EUR", "money", 2), ("2e14flop", "flops", 2e14), (" .5 h ", "minutes", 30),
    ],
)  # fmt: skip
def test_budgets_in_words(text: str, unit: str, amount: float) -> None:
    budget = parse_budget(text, Prices())
    assert budget.unit == unit
    assert budget.amount == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "30", "min", "-3min", "0min", "1..2min", "3 apples", "inf min", "1e999min", "2USD"])
def test_budgets_that_mean_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match="For example 30min"):
        parse_budget(text, Prices())


def test_larger_budgets_buy_wider_designs_and_never_more_than_they_hold() -> None:
    wholes = []
    for minutes in (2, 5, 20, 60, 200):
        try:
            planned = fitted(SweepSettings(), Budget("minutes", minutes), TEXT, model())
        except ConfigError as error:
            assert "too small for any plan" in str(error)
            continue
        assert planned.whole.minutes <= minutes
        shares = [min(planned.settings.tokens) / min(one.tokens) for one in DESIGNS if one.sizes == planned.settings.sizes]
        assert shares[0] > SHORTEST - 0.01
        wholes.append(planned.whole.flops)
    assert len(wholes) >= 3
    assert wholes == sorted(wholes)


def test_branches_and_workers_are_in_the_cost() -> None:
    settings = SweepSettings()
    one, two = (costed(settings, TEXT, model(workers)) for workers in (1, 2))
    assert one.sweep.core_minutes == pytest.approx(two.sweep.core_minutes)
    assert one.sweep.minutes == pytest.approx(one.sweep.core_minutes)
    assert two.sweep.minutes < 0.7 * one.sweep.minutes
    assert one.sweep.flops < 0.8 * math.fsum(run.flops for run in runs_of(settings, TEXT))
    kwh = one.sweep.energy.wh / 1000
    assert one.sweep.money == pytest.approx(one.sweep.minutes / 60 * 1.0 + kwh * 0.4)


def test_a_plan_of_ones_own_over_the_budget_is_refused() -> None:
    planned = costed(SweepSettings(), TEXT, model())
    assert refused(planned, Budget("minutes", planned.whole.minutes + 1)) is None
    error = refused(planned, Budget("joules", planned.whole.energy.joules / 2))
    assert error is not None
    assert "more than the budget" in str(error)


def test_a_text_that_is_too_short_says_how_much_it_must_hold() -> None:
    short = Prepared("nowhere", "0" * 64, 512, 128, 300_000, 300_000, 700)
    with pytest.raises(ConfigError, match=r"must hold at least .*M tokens for the smallest plan"):
        fitted(SweepSettings(), Budget("minutes", 100), short, model())


def test_a_busy_machine_changes_no_plan_and_is_said() -> None:
    quiet, budget = model(), Budget("minutes", 60)
    busy = replace(quiet, speeds={size: replace(speed, wall=3 * speed.seconds) for size, speed in quiet.speeds.items()})
    planned = fitted(SweepSettings(), budget, TEXT, busy)
    assert planned == fitted(SweepSettings(), budget, TEXT, quiet)
    assert (quiet.busy, busy.busy, cost_table(planned, busy)["busy"]) == (1.0, pytest.approx(3.0), 3.0)


def test_what_others_compute_is_no_part_of_a_size_s_time(home: Home, long_texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, wall = [0.0], [0.0]

    def waits(_run: object, _prepared: object, _folder: object, watch: TrainWatch) -> None:
        for _ in range(6):
            own[0] += 1
            wall[0] += 5  # others had the core
            watch.progress(None)  # type: ignore[arg-type]

    monkeypatch.setattr("ingle.scaling.climb.new_training", waits)
    monkeypatch.setattr("ingle.scaling.sweep_worker.time", SimpleNamespace(process_time=lambda: own[0], perf_counter=lambda: wall[0]))
    settings = tiny_sweep(long_texts)
    home.create()
    prepared = prepare(home, settings.data, settings.vocabulary)
    messages = list[dict[str, Any]]()
    runs = to_table(runs_of(settings, prepared)[:1])
    perform({"call": "time", "runs": runs, "prepared": prepared.folder}, lambda header, _: messages.append(header))
    [timed] = [one for one in messages if one["kind"] == "time"]
    assert timed["seconds_per_token"] * settings.batch_tokens == pytest.approx(1)
    assert timed["wall_per_token"] * settings.batch_tokens == pytest.approx(5)
