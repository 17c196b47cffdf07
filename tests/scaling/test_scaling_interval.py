"""Intervals of a new run: tight without noise, honest with it, refused where nothing was tested."""

import json

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.scaling.interval import fit_points
from ingle.scaling.points import Place, Point
from tests.scaling.test_scaling_fit import FAR, runs, truth


def test_without_noise_the_interval_is_the_truth() -> None:
    law = truth("chinchilla")
    fit = fit_points(runs(law))
    one = fit.predict(FAR)[0]
    assert one.loss == pytest.approx(law.loss_at(FAR)[0], rel=1e-6)
    assert one.high - one.low < 1e-5
    assert sum(weight for _, weight in fit.laws) == pytest.approx(1)


def test_more_noise_makes_wider_intervals_and_is_itself_found() -> None:
    widths = []
    for noise in (0.001, 0.004, 0.016):
        fit = fit_points(runs(truth("chinchilla"), noise, 3))
        one = fit.predict(FAR)[0]
        assert one.low < one.loss < one.high
        assert noise / 2.5 < fit.noise < noise * 2.5
        widths.append(one.high - one.low)
    assert widths[0] * 2 < widths[1] and widths[1] * 2 < widths[2]


def test_samples_are_the_same_laws_everywhere() -> None:
    fit = fit_points(runs(truth("chinchilla"), 0.005))
    near, far = Place(2.76e6, 3e6), FAR[0]
    both = fit.samples([near, far])
    assert np.array_equal(both[:, :1], fit.samples([near])) and np.array_equal(both[:, 1:], fit.samples([far]))
    assert (both[:, 0] > both[:, 1]).mean() > 0.99
    assert np.std(both[:, 0] - both[:, 1]) < np.hypot(*both.std(axis=0))


def test_equal_runs_in_any_order_give_the_same_fit() -> None:
    some = runs(truth("chinchilla"), 0.005)
    one, other = fit_points(some), fit_points(some[::-1])
    assert one.digest == other.digest and one.predict(FAR) == other.predict(FAR)
    changed = fit_points([*some[:-1], Point(some[-1].parameters, some[-1].tokens, some[-1].loss + 1e-6)])
    assert changed.digest != one.digest


def test_far_places_and_repeats_are_refused_with_the_reason() -> None:
    fit = fit_points(runs(truth("chinchilla"), 0.005))
    with pytest.raises(ConfigError, match=r"at most 10 times as much compute as the largest run; 27\.6M × 9M is 30 times"):
        fit.predict([Place(27.6e6, 9e6)])
    with pytest.raises(ConfigError, match="must not repeat texts: no run did"):
        fit.predict([Place(2e6, 6e6, 3e6)])
    with pytest.raises(ConfigError, match="must be above 0"):
        fit.predict([Place(0.0, 6e6)])


def test_losses_that_rise_with_size_and_data_have_no_law() -> None:
    some = [Point(n, d, 1.0 + 1e-7 * n + 1e-7 * d) for n in (1e6, 2e6, 4e6) for d in (1e6, 2e6, 4e6)]
    with pytest.raises(ConfigError, match="loss falls with size and with data"):
        fit_points(some)


def test_the_table_is_json() -> None:
    table = fit_points(runs(truth("repeated"), 0.005)).table()
    assert json.loads(json.dumps(table)) == table
    assert {law["form"] for law in table["laws"]} == {"repeated", "farseer_lite"}
