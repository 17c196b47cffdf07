"""Demand: read as people say it, counted from the ledger, and it moves the best size the right way."""

from datetime import UTC, datetime, timedelta

import pytest

from ingle.core.energy import Energy
from ingle.core.errors import ConfigError
from ingle.energy.label import Label, LabelPart
from ingle.scaling.advise import Demand, advise, cheapest, demand_of, parse_demand, served, serving_energy
from ingle.scaling.budget import parse_budget
from ingle.scaling.lever import chosen
from tests.scaling.outlooks import SECONDS, WATTS, outlook, truth

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2Mtokens/day", 2e6),
        ("300 ktokens / h", 7.2e6),
        ("5Mtok/week", 5e6 / 7),
        ("1e3tokens/d", 1000),
        ("0tokens/day", 0),
        ("1token/day", 1),
    ],
)
def test_demand_is_read_as_people_say_it(text: str, tokens: float) -> None:
    assert parse_demand(text).tokens_a_day == pytest.approx(tokens)


@pytest.mark.parametrize("text", ["2M", "2Mtokens", "tokens/day", "-1tokens/day", "2Mtokens/year", "1..2tokens/day", ""])
def test_what_is_no_demand_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--serves must be tokens in a time.*For example 2Mtokens/day"):
        parse_demand(text)


def test_demand_is_counted_from_the_ledger() -> None:
    def at(days: float) -> str:
        return (NOW - timedelta(days=days)).isoformat()

    old = (at(31), {"prompt_tokens": 10**9, "completion_tokens": 10**9})
    some = [
        (at(1), {"prompt_tokens": 700, "cached_tokens": 200, "completion_tokens": 500}),
        (at(4), {"prompt_tokens": 1000, "completion_tokens": None}),
    ]
    found = demand_of([*some, old], NOW)
    assert found.tokens_a_day == pytest.approx(2000 / 4)
    assert "ledger" in found.source
    assert demand_of([], NOW).tokens_a_day == 0
    assert (
        demand_of([(at(0.01), {"prompt_tokens": 600, "completion_tokens": 400})], NOW).tokens_a_day == 1000
    )  # not 100,000: a day is the least


def test_more_demand_makes_the_best_model_smaller_and_its_training_longer() -> None:
    now = outlook(noise=0.0005)
    found = [cheapest(now.fit, now.reports, (), 1.5, tokens) for tokens in (0.0, 3e5, 3e6, 3e7)]
    sizes, lengths = [one.parameters for one in found], [one.tokens for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert lengths == sorted(lengths)
    assert sizes[-1] < 0.6 * sizes[0]
    for one in found:
        assert truth(one.parameters, one.tokens) == pytest.approx(1.5, abs=0.02)
        assert one.low <= one.parameters <= one.high


def test_without_demand_it_is_the_cheapest_to_train() -> None:
    now = outlook(noise=0.0005)
    best = cheapest(now.fit, now.reports, (), 1.5, 0.0)
    assert best.serving.joules == 0
    for factor in (0.6, 1.7):
        size = best.parameters * factor
        low, high = 1e5, 1e9
        while high / low > 1.001:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if truth(size, middle) > 1.5 else (low, middle)
        assert WATTS * SECONDS * size * low > 0.99 * best.training.joules


def test_joules_of_a_served_token_come_from_a_label_or_from_training() -> None:
    now = outlook()
    reckoned, how = serving_energy(now.reports, (), 1e6)
    assert reckoned.joules == pytest.approx(WATTS * SECONDS * 1e6 / 3)
    assert "third" in how
    part = LabelPart("chat", 10, 400, 600, Energy(50.0, 20.0, 90.0, "rapl"), 1.0)
    label = Label("smollm2", "d", "m", "here", 2, "cpu", 1, 0.0, (part, part), "now")
    told, how = serving_energy(now.reports, [(label, 1e8)], 1e6)
    assert told.joules == pytest.approx(0.05 * 0.01)
    assert (told.low, told.high) == (pytest.approx(0.0002), pytest.approx(0.0009))
    assert "energy label of smollm2" in how


def test_advice_names_the_cheapest_over_its_life() -> None:
    now = outlook()
    advice = advise(now, parse_budget("60min", now.prices), chosen(["size", "data"]))
    table = served(now, advice, Demand(5e6, "as you said"), ())
    assert table["cheapest"]["parameters"] < table["cheapest_to_train"]["parameters"]
    whole = table["cheapest"]["training"]["joules"] + table["cheapest"]["serving"]["joules"]
    assert whole < table["cheapest_to_train"]["all"]["joules"]
    assert "5M tokens a day (as you said) over 180 days" in table["said"][0]


def test_a_loss_that_no_size_reaches_is_refused() -> None:
    now = outlook()
    with pytest.raises(ConfigError, match=r"no size reaches 0\.500"):
        cheapest(now.fit, now.reports, (), 0.5, 1e6)
