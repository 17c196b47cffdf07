"""The split of compute, equal losses, and where compute stops to pay: by the formulas where there is no noise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.scaling.frontier import best_losses, fit_csv, iso_loss, of_kind, parse_place, returns, rows, split
from ingle.scaling.interval import Fit, fit_points
from ingle.scaling.points import Place, write_points
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
    sizes, loss = [0.5e6, 1e6, 4e6, 1e3], 2.1
    for size, found in zip(sizes, iso_loss(exact, loss, sizes), strict=True):
        left = loss - floor - a * size**-alpha
        assert found.value == (pytest.approx((b / left) ** (1 / beta), rel=2e-3) if left > 0 else math.inf)
    some = iso_loss(noisy, loss, [1e6])[0]
    assert some.low < some.value < some.high


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
    assert np.allclose(best_losses(exact, [start]), best(start), rtol=1e-5)


def test_a_table_of_anyone_is_fitted(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(write_points(runs(truth("chinchilla"), 0.004)), "utf-8")
    table = fit_csv(path, parse_place("6430000,5.25e6"))
    assert json.loads(json.dumps(table)) == table
    one = table["prediction"]
    assert one["low"] < truth("chinchilla").loss_at(FAR)[0] < one["high"]
    assert table["optimal"]["flops"] == pytest.approx(FAR[0].compute)
    shown = rows(table)
    assert all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in shown)
    assert any(row[0] == "loss of 6.43M × 5.25M" and row[1] == f"{one['loss']:.4f}" for row in shown)
    assert fit_csv(path)["prediction"] is None
    assert fit_csv(path, parse_place("2e6,3e6,1e6"))["law"]["form"] in ("repeated", "farseer_lite")


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "a,b", "1,-2", "1,nan", "1e6,inf"])
def test_a_place_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigError, match="must be parameters,tokens"):
        parse_place(text)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        of_kind(runs(truth("chinchilla")), "hybrid")
