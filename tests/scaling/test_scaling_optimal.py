"""The split of compute, equal losses, and where compute stops to pay: by the formulas where there is no noise."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.scaling.frontier import best_splits, fit_of_csv, fit_table, of_kind, parse_place, returns, rows, split, tokens_to_reach
from ingle.scaling.interval import Fit, fit_points
from ingle.scaling.points import Floats, Place, write_points
from tests.scaling.test_scaling_fit import FAR, TRUTHS, runs, truth

FLOPS = 1e14


@pytest.fixture(scope="module")
def exact() -> Fit:
    return fit_points(runs(truth("chinchilla")))


@pytest.fixture(scope="module")
def noisy() -> Fit:
    return fit_points(runs(truth("chinchilla"), 0.005))


def best_size(flops: float) -> float:
    (alpha, beta), (_, a, b) = TRUTHS["chinchilla"]
    return (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))


def test_the_best_split_is_that_of_the_formula(exact: Fit) -> None:
    found = split(exact, FLOPS)
    assert found.parameters.value == pytest.approx(best_size(FLOPS), rel=0.04)
    assert found.parameters.value * found.tokens.value * 6 == pytest.approx(FLOPS)
    assert found.loss.loss == pytest.approx(
        truth("chinchilla").loss_at([Place(best_size(FLOPS), FLOPS / 6 / best_size(FLOPS))])[0], rel=1e-4
    )
    assert found.notes == ()


def test_noise_makes_the_split_unsure(noisy: Fit) -> None:
    found = split(noisy, FLOPS)
    assert found.parameters.low < found.parameters.value < found.parameters.high
    assert found.parameters.low < best_size(FLOPS) < found.parameters.high
    assert found.tokens.low < found.tokens.value < found.tokens.high
    assert json.loads(json.dumps(found.table())) == found.table()


def test_few_different_texts_want_a_larger_model() -> None:
    fit = fit_points(runs(truth("repeated"), 0.003))
    assert split(fit, FLOPS, unique=0.5e6).parameters.value > split(fit, FLOPS).parameters.value


def test_too_much_compute_is_refused(exact: Fit) -> None:
    with pytest.raises(ConfigError, match="10 times as much compute"):
        split(exact, 1e16)
    with pytest.raises(ConfigError, match="above 0"):
        split(exact, 0.0)
    with pytest.raises(ConfigError, match="10 times as much compute"):
        returns(exact, unit=1e16)


def test_equal_losses_are_solved_for(exact: Fit, noisy: Fit) -> None:
    (alpha, beta), (floor, a, b) = TRUTHS["chinchilla"]
    tokens, loss = np.geomspace(2.5e4, 3e8, 120), 2.1

    def needed(fit: Fit, size: float) -> Floats:
        return tokens_to_reach(loss, fit.samples([Place(size, float(count)) for count in tokens]), tokens)

    for size in (0.5e6, 1e6, 4e6, 1e3):
        left = loss - floor - a * size**-alpha
        assert np.median(needed(exact, size)) == (pytest.approx((b / left) ** (1 / beta), rel=2e-3) if left > 0 else math.inf)
    low, middle, high = np.quantile(needed(noisy, 1e6), [0.05, 0.5, 0.95])
    assert low < middle < high


def test_gains_fall_as_the_formula_says(exact: Fit) -> None:
    found = returns(exact)
    law, start = truth("chinchilla"), exact.largest

    def best(flops: float) -> float:
        return float(law.loss_at([Place(best_size(flops), flops / 6 / best_size(flops))])[0])

    for number, gain in enumerate(found.gains):
        assert gain.value == pytest.approx(best(start * (number + 1)) - best(start * (number + 2)), rel=1e-2)
    assert len(found.gains) == 8
    at = found.stops.value
    assert best(at) - best(at + start) == pytest.approx(0.25 * (best(start) - best(2 * start)), rel=0.1)
    assert np.allclose(best_splits(exact, [start])[0], best(start), rtol=1e-5)


def said(path: Path, predict: Place | None = None) -> dict[str, Any]:
    return fit_table(fit_of_csv(path, predict), predict)


def test_a_table_of_anyone_is_fitted(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(write_points(runs(truth("chinchilla"), 0.004)), "utf-8")
    table = said(path, parse_place("6430000,5.25e6"))
    assert json.loads(json.dumps(table)) == table
    one = table["prediction"]
    assert one["low"] < truth("chinchilla").loss_at(FAR)[0] < one["high"]
    assert table["optimal"]["flops"] == pytest.approx(FAR[0].compute)
    shown = rows(table)
    assert all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in shown)
    assert any(row[0] == "loss of 6.43M × 5.25M" and row[1] == f"{one['loss']:.4f}" for row in shown)
    assert said(path)["prediction"] is None
    assert said(path, parse_place("2e6,3e6,1e6"))["law"]["form"] in ("repeated", "farseer_lite")


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "a,b", "1,-2", "1,nan", "1e6,inf"])
def test_a_place_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigError, match="must be parameters,tokens"):
        parse_place(text)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        of_kind(runs(truth("chinchilla")), "hybrid")
