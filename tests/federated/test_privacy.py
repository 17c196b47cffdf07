"""ε is what the closed form and plain integration say, never below them; units that noise would drown are refused with the figure."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError
from ingle.federated.privacy import PrivacyPlan, check_learnable, epsilon, noise_for, noise_share, noise_to_signal
from tests.examples import examples

PLAN = PrivacyPlan("record", noise=1.4, share=0.128, steps=60, delta=1e-5)


def exact_delta(eps: float, noise: float, steps: int) -> float:
    """δ of `steps` sums of everybody: one Gaussian with noise / √steps (Balle and Wang 2018)."""
    mu = math.sqrt(steps) / noise
    return below(mu / 2 - eps / mu) - math.exp(eps) * below(-mu / 2 - eps / mu)


def below(point: float) -> float:
    return 0.5 * math.erfc(-point / math.sqrt(2))


def integrated_delta(eps: float, noise: float, share: float) -> float:
    """δ of one step by plain integration of both densities, in the worse direction."""
    x = np.linspace(-12 * noise, 1 + 12 * noise, 400_001)
    without = np.exp(-0.5 * (x / noise) ** 2)
    having = (1 - share) * without + share * np.exp(-0.5 * ((x - 1) / noise) ** 2)
    scale = (x[1] - x[0]) / (noise * math.sqrt(2 * math.pi))
    ways = (having - math.exp(eps) * without, without - math.exp(eps) * having)
    return max(float(np.maximum(way, 0).sum()) * scale for way in ways)


@given(noise=st.floats(0.7, 8), steps=st.sampled_from([1, 2, 10, 60]), delta=st.sampled_from([1e-2, 1e-5, 1e-8]))
@examples(15)
def test_without_sampling_it_is_the_closed_form(noise: float, steps: int, delta: float) -> None:
    got = epsilon(PrivacyPlan("home", noise, 1.0, steps, delta))
    assert exact_delta(got, noise, steps) <= delta * 1.0001, "never too low"
    nearly = got - 0.012  # steps · grid, rounded up once more
    assert nearly < 0 or exact_delta(nearly, noise, steps) > delta, "and little too high"


@given(noise=st.floats(0.5, 4), share=st.floats(0.01, 0.9), delta=st.sampled_from([1e-2, 1e-4, 1e-6]))
@examples(15)
def test_one_sampled_step_is_what_integration_gives(noise: float, share: float, delta: float) -> None:
    got = epsilon(PrivacyPlan("record", noise, share, 1, delta))
    assert integrated_delta(got, noise, share) <= delta * 1.001
    assert got < 0.003 or integrated_delta(got - 0.003, noise, share) > delta


def naive_composed(noise: float, share: float, steps: int, eps: float) -> float:
    """δ by adding up all pairs and triples of one step's outcomes, unrounded: the composition without FFT."""
    x = np.linspace(-7 * noise, 1 + 7 * noise, 700 if steps == 2 else 150)
    without = np.exp(-0.5 * (x / noise) ** 2)
    having = (1 - share) * without + share * np.exp(-0.5 * ((x - 1) / noise) ** 2)
    without, having = without / without.sum(), having / having.sum()
    p, q = having, without
    for _ in range(steps - 1):
        p, q = np.outer(p, having).reshape(-1), np.outer(q, without).reshape(-1)
    return max(float(np.maximum(p - math.exp(eps) * q, 0).sum()), float(np.maximum(q - math.exp(eps) * p, 0).sum()))


@pytest.mark.parametrize(("noise", "share", "steps"), [(1.0, 0.3, 2), (0.8, 0.6, 2), (1.5, 0.2, 3)])
def test_composed_steps_are_what_adding_up_gives(noise: float, share: float, steps: int) -> None:
    got = epsilon(PrivacyPlan("record", noise, share, steps, 1e-3))
    assert naive_composed(noise, share, steps, got) <= 1e-3 * 1.01
    assert naive_composed(noise, share, steps, got - 0.02) > 1e-3


# Measured with Google's dp-accounting 0.6.0 (PLD): bench/federated_privacy.py.
ANCHORS = [
    (2.12, 1.0, 10, 1e-2, 3.9888), (1.29, 1.0, 10, 1e-2, 8.0121), (3.94, 0.128, 60, 1e-5, 1.0015), (1.40, 0.128, 60, 1e-5, 3.9914),
    (0.94, 0.128, 60, 1e-5, 7.9752), (1.03, 0.1, 50, 1e-4, 4.0293), (1.02, 0.0512, 100, 1e-6, 4.0310), (0.5, 0.01, 1, 1e-5, 3.0254),
]  # fmt: skip


@pytest.mark.parametrize(("noise", "share", "steps", "delta", "theirs"), ANCHORS)
def test_it_is_what_another_accountant_says(noise: float, share: float, steps: int, delta: float, theirs: float) -> None:
    assert theirs - 1e-4 <= epsilon(PrivacyPlan("record", noise, share, steps, delta)) <= theirs + 0.0102


def test_more_noise_fewer_steps_and_smaller_shares_promise_more() -> None:
    whole = epsilon(PLAN)
    for kinder in (replace(PLAN, noise=1.5), replace(PLAN, steps=50), replace(PLAN, share=0.1), replace(PLAN, delta=1e-4)):
        assert epsilon(kinder) < whole
    assert epsilon(replace(PLAN, noise=500.0, steps=1)) < 0.01


def test_the_noise_for_a_wanted_epsilon() -> None:
    noise = noise_for(PLAN, 4.0)
    assert noise == 1.4, "the design's table has 1.40"
    assert epsilon(replace(PLAN, noise=noise)) <= 4.0 < epsilon(replace(PLAN, noise=noise - 0.01))


def test_what_noise_would_drown_is_refused_with_the_figure() -> None:
    """Ten homes cannot promise the privacy of a home: the design's own figure."""
    home = PrivacyPlan("home", noise=4.0, share=1.0, steps=10, delta=1e-2)
    with pytest.raises(ConfigError, match=r"noise of 883\.6 times the signal .* Have 4,419 homes.* instead of 10.*promise it for a record"):
        check_learnable(home, 4_880_000, 10)
    assert check_learnable(PLAN, 200_000, 512) == pytest.approx(1.22, abs=0.01)
    with pytest.raises(ConfigError, match=r"one record .* instead of 64, or train 8,3\d\d numbers instead of 200,000\.$"):
        check_learnable(PLAN, 200_000, 64)
    assert noise_to_signal(2.0, 400, 40) == 1.0


def test_shares_of_the_noise_add_up_to_it() -> None:
    each = noise_share(1.4, longest=0.5, honest=4)
    assert 4 * each**2 == pytest.approx((1.4 * 0.5) ** 2)
    with pytest.raises(ConfigError, match="honest"):
        noise_share(1.0, 1.0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit", "person"),
        ("noise", 0.0),
        ("noise", math.nan),
        ("share", 0.0),
        ("share", 1.1),
        ("steps", 0),
        ("delta", 0.0),
        ("delta", 1e-12),
    ],
)
def test_plans_that_mean_nothing_are_refused(field: str, value: object) -> None:
    values = {"unit": "record", "noise": 1.0, "share": 0.1, "steps": 10, "delta": 1e-5, field: value}
    with pytest.raises(ConfigError, match=field):
        PrivacyPlan(**values)  # type: ignore[arg-type]


def test_an_epsilon_that_no_noise_keeps() -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        noise_for(PLAN, 0.0)
    with pytest.raises(ConfigError, match="can't be kept"):
        noise_for(replace(PLAN, share=1.0, steps=2), 1e-4)
