"""Joules add up with their intervals, and an estimate stays one whatever it is added to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.energy import NOTHING, Energy, amount, energy_in, total

SIZES = st.floats(0, 1e9)
ENERGIES = st.builds(lambda a, b, c, s: Energy(*sorted((a, b, c))[1:2], min(a, b, c), max(a, b, c), s), SIZES, SIZES, SIZES,
                     st.sampled_from(["model", "rapl", "nvml", "battery", "model, unknown CPU"]))  # fmt: skip


@given(st.lists(ENERGIES, max_size=5))
def test_a_sum_holds_its_parts_and_one_estimate_makes_it_an_estimate(parts: list[Energy]) -> None:
    whole = total(parts)
    assert whole.low <= whole.joules * (1 + 1e-12) and whole.joules <= whole.high * (1 + 1e-12)
    assert whole.joules == pytest.approx(sum(part.joules for part in parts))
    assert whole.measured == (bool(parts) and all(part.measured for part in parts))
    assert set(whole.source.split(" + ")) == ({part.source for part in parts} or {""})


def test_sources_are_named_once_and_in_order() -> None:
    one = Energy(1, 1, 1, "rapl") + Energy(1, 0, 2, "model") + Energy(1, 1, 1, "rapl") + NOTHING
    assert one == Energy(3, 2, 4, "model + rapl")
    assert (NOTHING + NOTHING).source == "" and not NOTHING.measured
    assert Energy(1, 1, 1, "nvml + rapl").measured and not Energy(1, 1, 1, "model, without the GPU + rapl").measured


@given(ENERGIES, st.floats(0, 1))
def test_shares_of_it_are_the_whole(energy: Energy, share: float) -> None:
    again = energy.scaled(share) + energy.scaled(1 - share)
    assert again.source == energy.source
    for name in ("joules", "low", "high"):
        assert getattr(again, name) == pytest.approx(getattr(energy, name))


@given(ENERGIES)
def test_facts_are_read_back(energy: Energy) -> None:
    back = energy_in({"seq": 3, **energy.facts()})
    assert back is not None and back.source == energy.source
    assert back.joules == pytest.approx(energy.joules, rel=1e-5)
    assert energy_in({"joules": 3.0, "energy_source": None}) is None and energy_in({}) is None


def test_people_are_told_what_is_an_estimate() -> None:
    assert str(Energy(3.14, 1.2, 1500, "model")) == "3.14 J (1.20 J – 1.50 kJ, estimated: model)"
    assert "measured: rapl" in str(Energy(3, 3, 3, "rapl"))
    assert [amount(joules) for joules in (0, 0.4321, 12.34, 123.4, 999.9, 5e9)] == [
        "0.00 J",
        "0.43 J",
        "12.3 J",
        "123 J",
        "1.00 kJ",
        "5.00 GJ",
    ]
