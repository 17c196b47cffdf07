"""Advice: a lever that is known to be best wins, equal ones are equal, and nothing is told that was not measured."""

import math
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.scaling.advise import Advice, Offer, advise, rows
from ingle.scaling.budget import Prices, parse_budget
from ingle.scaling.frontier import stops_paying
from ingle.scaling.interval import fit_points
from ingle.scaling.lever import LEVERS, TrainingLever, chosen, difference
from ingle.scaling.points import Point
from ingle.scaling.probing import Outlook, differences, offset, residuals, speed_at
from ingle.scaling.sweep_settings import point_of
from tests.scaling.outlooks import SECONDS, SETTINGS, outlook, pairs, report, truth

TRAINING = {name: lever for name, lever in LEVERS.items() if isinstance(lever, TrainingLever)}


def advised(now: Outlook, budget: str = "60min", names: str = "") -> Advice:
    return advise(now, parse_budget(budget, now.prices), chosen(names.split()))


def offer(advice: Advice, name: str) -> Offer:
    return next(one for one in advice.offers if one.lever == name)


def changed(name: str, number: int = 0) -> dict[str, Any]:
    return difference(SETTINGS, TRAINING[name].changes(SETTINGS)[number])


def test_a_lever_that_is_known_to_be_best_wins() -> None:
    now = outlook([*pairs("hybrid", changed("hybrid"), 0.05), *pairs("rnn", changed("rnn"), -0.02)])
    advice = advised(now, "60min", "size data hybrid rnn")
    assert [one.lever for one in advice.offers] == ["hybrid", "size", "data", "rnn"]
    best = advice.offers[0]
    assert best.probability_best > 0.95
    assert sum(one.probability_best for one in advice.offers) == pytest.approx(1)
    assert best.gain is not None
    assert best.low is not None
    assert best.high is not None
    assert best.low < best.gain < best.high
    run = now.settings
    assert "kind hybrid" in best.do
    assert best.settings is not None
    assert best.settings.model.memory == "gated_delta"
    assert best.cost is not None
    assert best.cost.minutes == pytest.approx(60, rel=0.01)
    assert run.kind == "transformer"


def test_the_gain_is_that_of_the_true_law() -> None:
    now = outlook(noise=0.0005)
    advice = advised(now, "60min", "size data")
    for one in advice.offers:
        assert one.route is not None
        assert one.low is not None
        assert one.high is not None
        true = now.incumbent["loss"] - truth(one.route.parameters, one.tokens)
        assert one.gain == pytest.approx(true, abs=0.01)
        assert one.low < true < one.high


def test_no_other_size_or_length_would_be_better_for_the_money() -> None:
    now = outlook(noise=0.0005)
    [best, *_] = advised(now, "60min", "size").offers
    assert best.losses is not None
    for name in ("4x192", "6x256", "10x320"):
        parameters = report(name, 1, 1.0)["parameters"]
        tokens = 3600 / (SECONDS * parameters)
        assert best.losses.mean() < truth(parameters, tokens) + 0.005


def test_equal_levers_have_equal_chances() -> None:
    same = [*pairs("hybrid", changed("hybrid"), 0.03, noise=0.002), *pairs("rnn", changed("rnn"), 0.03, noise=0.002)]
    now = outlook(same)
    one, other = (offer(advised(now, "60min", "hybrid rnn"), name).probability_best for name in ("hybrid", "rnn"))
    assert one + other == pytest.approx(1)
    assert 0.15 < one < 0.85
    exactly = advised(outlook(), "60min", "data")
    assert exactly.offers[0].probability_best == 1


def test_a_lever_whose_tokens_cost_more_gains_less() -> None:
    cheap, dear = (outlook(pairs("hybrid", changed("hybrid"), 0.03, seconds)) for seconds in (1.0, 1.6))
    gains = [offer(advised(now, "60min", "hybrid"), "hybrid").gain for now in (cheap, dear)]
    assert gains[0] is not None
    assert gains[1] is not None
    assert gains[0] > gains[1] + 0.01
    assert offer(advised(dear, "60min", "hybrid"), "hybrid").cost.minutes == pytest.approx(60, rel=0.01)  # type: ignore[union-attr]


def test_a_lever_without_evidence_is_never_told_as_measured() -> None:
    advice = advised(outlook(pairs("hybrid", changed("hybrid"), 0.05)))
    measured = {one.lever for one in advice.offers if one.measured}
    assert measured == {"size", "data", "hybrid"}
    assert [one.measured for one in advice.offers] == sorted((one.measured for one in advice.offers), reverse=True)
    for one in advice.offers:
        table = one.table(advice.budget)
        assert table["measured"] == (table["gain"] is not None) == (one.lever in measured)
        if not one.measured:
            assert one.probability_best == 0
            assert one.why.startswith("not measured: a probe costs")
            assert one.why.endswith(f"ingle scale probe small --lever {one.lever}")
    assert any("ask_more" in note for note in advice.notes)
    assert {row[1] for row in rows(advice) if row[0] not in measured} == {"not measured"}


def test_other_changes_of_a_lever_are_not_measured_by_one() -> None:
    now = outlook(pairs("vocabulary", changed("vocabulary", 1), 0.04))
    assert "vocabulary 4096" in offer(advised(now, "60min", "vocabulary"), "vocabulary").do


def test_budgets_that_buy_nothing_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"fewer than 150 steps.*Give .* min or more"):
        advised(outlook(), "1s", "size data")
    with pytest.raises(ConfigError, match="at most 10 times as much compute"):
        advised(outlook(tokens=10**10), "300h", "size data")
    with pytest.raises(ConfigError, match="is in money, and the sweep's runs say nothing of that"):
        advised(outlook(prices=Prices(kwh=0)), "2EUR", "size data")


def test_a_budget_below_the_best_models_own_gains_nothing_and_says_so() -> None:
    advice = advised(outlook(), "3min", "size data")
    assert all(one.gain is not None and one.gain < 0 for one in advice.offers)
    assert any(note.startswith("Nothing that was measured gains for 3 min") for note in advice.notes)


@pytest.mark.parametrize(("text", "unit"), [("60min", "minutes"), ("72kJ", "joules"), ("1e14flop", "flops"), ("0.006EUR", "money")])
def test_any_kind_of_budget(text: str, unit: str) -> None:
    advice = advised(outlook(), text, "size data")
    budget = parse_budget(text, Prices())
    assert budget.unit == unit
    for one in advice.offers:
        assert one.cost is not None
        assert budget.spent(one.cost) == pytest.approx(budget.amount, rel=0.02)


def test_text_that_ends_is_said_and_more_is_not_bought() -> None:
    data = offer(advised(outlook(tokens=4_000_000), "60min", "data"), "data")
    assert data.why.endswith("; the text ends there")
    assert data.cost is not None
    assert data.cost.minutes < 25


def test_where_more_text_stops_paying() -> None:
    """By the law dL/dD falls to a quarter at 4^(1/(1 + β)) times as much; noise of the runs moves β a little."""
    data = offer(advised(outlook(noise=0.0005, tokens=10**9), "60min", "data"), "data")
    now = outlook()
    begins = now.incumbent["seconds"] / 60
    assert data.stops_paying is not None
    assert data.stops_paying / begins == pytest.approx(4 ** (1 / 1.4), rel=0.15)


def test_diminishing_returns_of_a_known_curve() -> None:
    spent = np.geomspace(1, 100, 60)
    assert stops_paying(spent, 5 * spent**-0.5) == pytest.approx(4 ** (1 / 1.5), rel=0.05)
    assert stops_paying(spent, 3 - 0.01 * spent) is None
    assert stops_paying(spent, np.full(60, 2.0)) is None
    assert stops_paying(spent[:2], [2.0, 1.0]) is None
    assert stops_paying([1, 2, 3, 4], [4.0, 3.0, 3.0, 3.0]) == pytest.approx(math.sqrt(6))


def test_an_offset_leaves_out_what_the_law_says_of_the_places() -> None:
    now = outlook(noise=0.0005)
    before = point_of(report("2x64", 1_500_000, truth(report("2x64", 1, 1)["parameters"], 1.5e6)))
    larger = 1.3 * before.parameters
    after = Point(larger, before.tokens, 0.97 * truth(larger, before.tokens))
    [pair] = pairs("hybrid", {}, 0.0, count=1)
    moved = type(pair)("hybrid", {}, "here", "2x64", after, before)
    assert np.median(residuals(moved, now.fit)) == pytest.approx(math.log(0.97), abs=0.003)


def test_offsets_that_differ_between_sizes_are_believed_less() -> None:
    now = outlook()
    alike, apart = pairs("hybrid", {}, 0.03), pairs("hybrid", {}, 0.03, noise=0.03)
    rng = np.random.default_rng(0)
    spreads = [float(offset(some, now.fit, differences(some, now.fit), rng).std()) for some in (alike, apart)]
    assert spreads[1] > 3 * spreads[0]
    assert spreads[0] > now.fit.noise


def test_the_cost_of_a_token_is_read_between_sizes_and_grows_beyond() -> None:
    runs = outlook().reports
    assert speed_at(runs, 1e6).seconds == pytest.approx(SECONDS * 1e6)
    assert speed_at(runs, 1e7).seconds == pytest.approx(SECONDS * 1e7)
    energy = speed_at(runs, 1e6).energy
    assert energy.low / energy.joules == pytest.approx(0.7)
    assert energy.high / energy.joules == pytest.approx(1.5)


def test_a_model_that_a_command_made_is_compared_by_its_loss() -> None:
    energy = {"joules": 3600.0, "low": 2000.0, "high": 9000.0, "source": "model"}
    made = {"model": "smollm2+small-tuned", "loss": 1.1, "start_loss": 1.3, "seconds": 200.0, "energy": energy}
    made["command"] = "ingle make tune it"
    now = outlook(finetune=made)
    one = offer(advised(now, "60min"), "finetune")
    assert one.gain == pytest.approx(now.incumbent["loss"] - 1.1)
    assert one.probability_best == 1
    assert "smollm2 itself has 1.300" in one.why
    assert one.command == "ingle make tune it"
    dear = offer(advised(now, "3min", "size data finetune"), "finetune")
    assert dear.gain is None
    assert "more than the budget" in dear.why


def test_levers_that_are_unknown_are_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean hybrid"):
        chosen(["hybird"])


def test_one_draw_of_the_law_is_one_for_all_levers() -> None:
    """Two routes to one place have the same losses, draw by draw."""
    now = outlook()
    points = [point_of(one) for one in now.reports]
    again = fit_points(points)
    assert (again.samples([points[0]]) == now.fit.samples([points[0]])).all()
