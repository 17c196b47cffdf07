"""Advice: a lever that is known to be best wins, equal ones are equal, and nothing is told that was not measured."""

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.scaling.advise import Advice, Offer, advise
from ingle.scaling.budget import Prices, parse_budget
from ingle.scaling.lever import TrainingLever, difference, levers
from ingle.scaling.returns import stops_paying
from ingle.scaling.routes import Standing
from tests.scaling.standings import SECONDS, SETTINGS, pairs, standing, truth

TRAINING = {name: lever for name, lever in levers().items() if isinstance(lever, TrainingLever)}
COST_MIN = 2.77e6 * 3e6 * SECONDS / 60
"""About what the best model of the sweep cost."""


def advised(now: Standing, budget: str = "60min", *names: str) -> Advice:
    return advise(now, parse_budget(budget, Prices()), {name: levers()[name] for name in names or levers()})


def offer(advice: Advice, name: str) -> Offer:
    return next(one for one in advice.offers if one.lever == name)


def changed(name: str) -> dict[str, object]:
    lever = TRAINING[name]
    return difference(SETTINGS, lever.changes(SETTINGS)[0])


def test_a_lever_that_is_known_to_be_best_wins() -> None:
    now = standing([*pairs("hybrid", changed("hybrid"), 0.05), *pairs("rnn", changed("rnn"), -0.02)])
    advice = advised(now, "60min", "size", "data", "hybrid", "rnn")
    assert [one.lever for one in advice.offers][0] == "hybrid"
    best = advice.offers[0]
    assert best.probability_best > 0.95
    assert sum(one.probability_best for one in advice.offers) == pytest.approx(1)
    assert "hybrid" in best.do
    assert best.gain is not None and best.low is not None and best.high is not None
    assert best.low < best.gain < best.high
