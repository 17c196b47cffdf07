"""Privacy as an invitation promises it: the noise that is really added keeps it, homes may drop out, and every round is paid first."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError, FederatedError, HomeError
from ingle.core.makers import MAKERS
from ingle.federated import invitation
from ingle.federated.at_home import SPENT, read_spent, spend
from ingle.federated.invitation import (
    LEAST_STEPS,
    MOST_DEVIATIONS,
    Invitation,
    Privacy,
    check_invitation,
    check_promise,
    from_text,
    home_deviation,
    invite,
    longest_part,
    promise_in_words,
    promised,
    secret_normal,
    spent_epsilon,
    step_length,
    to_text,
    with_noise,
)
from ingle.federated.privacy import PrivacyPlan, epsilon
from ingle.federated.standing import folder_of, keep_said
from ingle.federated.terms import to_grid
from ingle.home.place import Home
from ingle.ledger.keys import new_signer
from tests.federated.homes import invited

SIGNERS = [new_signer() for _ in range(10)]
WANTED = Privacy("record", epsilon=8.0, delta=1e-5, clip=0.5, share=0.2, records=2000, numbers=50_000)
GOOD = invite(promised(replace(invited(SIGNERS), privacy=WANTED)), SIGNERS[0])


def test_the_invitation_says_what_the_accountant_says() -> None:
    of = GOOD.privacy
    real = epsilon(PrivacyPlan("record", of.noise, 0.2, GOOD.rounds, 1e-5))
    assert 7.5 < real <= of.epsilon == 8.0
    assert spent_epsilon(GOOD, GOOD.rounds) == real > spent_epsilon(GOOD, 3) > spent_epsilon(GOOD, 0) == 0.0
    again = from_text(to_text(GOOD))
    assert again == GOOD and "[privacy]" in to_text(GOOD)
    check_invitation(again)
    assert promise_in_words(GOOD).startswith(
        "Noise hides whether one of this home's examples had a part in the sums: ε 8, δ 1e-05, over 20 rounds"
    )
    assert "promises no differential privacy" in promise_in_words(invited(SIGNERS))
    assert promised(invited(SIGNERS)) == invited(SIGNERS), "nothing is promised where nothing was asked for"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"noise": 0.5}, r"privacy.epsilon must be at least \d+\.?\d*, which is what 20 rounds with noise 0.5 and share 0.2 give, not 8"),
        ({"epsilon": 2.0}, r"Take more noise \(\d\.\d+\), or fewer rounds"),
        ({"epsilon": 0.0}, "privacy.epsilon must be above 0"),
        ({"delta": 0.0}, "delta"),
        ({"clip": 0.0}, "privacy.clip"),
        ({"clip": -1.0}, "privacy.clip"),
        ({"clip": 5.0}, r"reach must be from .* neither is cut nor falls between two points"),
        ({"clip": 0.0005}, "reach must be from"),
        ({"share": 0.5}, "privacy.epsilon must be at least"),
        ({"records": 0}, "privacy.records"),
        ({"numbers": 0}, "privacy.numbers"),
        ({"numbers": 10_000_000}, r"noise of \d+\.\d times the signal into each step, and 2 is the most. Have [\d,]+ records in a step"),
        ({"unit": "person"}, "unit must be one of record, home"),
        ({"unit": ""}, "privacy.unit must be record or home if anything is promised"),
        ({"unit": "home"}, "privacy.share must be 1 for homes"),
    ],
)
def test_terms_that_do_not_add_up_are_refused_with_the_figure(change: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        invite(replace(GOOD, privacy=replace(GOOD.privacy, **change)), SIGNERS[0])  # type: ignore[arg-type]


def test_ten_homes_can_not_promise_the_privacy_of_a_home() -> None:
    wanted = Privacy("home", epsilon=8.0, delta=1e-2, clip=0.1, numbers=200_000)
    with pytest.raises(ConfigError, match=r"noise of \d+\.\d times the signal.* instead of 200,000; or promise it for a record"):
        invite(promised(replace(invited(SIGNERS), privacy=wanted)), SIGNERS[0])
    few = invite(promised(replace(invited(SIGNERS), privacy=replace(wanted, numbers=20), rounds=2)), SIGNERS[0])
    assert longest_part(few) == 0.1 and step_length(few) == 1.0


def test_more_rounds_need_more_noise() -> None:
    longer = promised(replace(GOOD, rounds=60))
    assert longer.privacy.noise > GOOD.privacy.noise
    with pytest.raises(ConfigError, match="which is what 60 rounds"):
        check_promise(replace(GOOD, rounds=60), GOOD.terms())


def noise_alone(invitation: Invitation, homes: int, count: int = 20_000) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    terms = invitation.terms()
    rows = [to_grid(with_noise(np.zeros(count), invitation, terms), terms.grid) for _ in range(homes)]
    assert not any(cut for _, cut in rows), "no noise is cut off"
    total = np.sum([row.astype(np.float64) for row, _ in rows], axis=0)
    return (total - homes * terms.grid.half) * terms.grid.step


def test_survivors_have_noise_enough_even_if_some_of_them_tell_theirs() -> None:
    terms, needed = GOOD.terms(), GOOD.privacy.noise * longest_part(GOOD)
    honest = terms.threshold - terms.traitors
    assert (terms.threshold, terms.traitors, honest) == (7, 3, 4)
    assert float(noise_alone(GOOD, honest).std()) == pytest.approx(needed, rel=0.03)
    assert float(noise_alone(GOOD, terms.threshold).std()) > 1.25 * needed
    assert home_deviation(GOOD, terms) >= LEAST_STEPS * terms.grid.step


def test_a_unit_moves_what_goes_into_a_sum_no_farther_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitation, "secret_normal", np.zeros)
    rng, terms = np.random.default_rng(0), GOOD.terms()
    room = terms.grid.reach - MOST_DEVIATIONS * home_deviation(GOOD, terms)
    for size in (0.1, 1.0, 30.0):  # some gains are far beyond the room for a signal
        gain, record = rng.normal(0, size * room, 500), rng.normal(0, 1, 500)
        record *= longest_part(GOOD) / np.linalg.norm(record)
        with_it, without = with_noise(gain + record, GOOD, terms), with_noise(gain, GOOD, terms)
        assert np.linalg.norm(with_it - without) <= longest_part(GOOD) * (1 + 1e-12) and np.abs(with_it).max() <= room
    assert longest_part(GOOD) == pytest.approx(0.5 * GOOD.learning.rate * 10 / (0.2 * 2000))
    home = promised(replace(GOOD, privacy=Privacy("home", epsilon=8.0, delta=1e-2, clip=0.01, numbers=500)))
    assert 0 < np.linalg.norm(with_noise(rng.normal(0, 1, 500), home, home.terms())) <= 0.01 * (1 + 1e-12)


@pytest.mark.parametrize("width", [LEAST_STEPS, 5.0])
def test_putting_noise_on_the_grid_costs_nothing(width: float) -> None:
    """The sum of homes' rounded numbers is distributed as their sum, rounded: module docstring of invitation.py, by adding up."""

    def rounded(at: float, deviation: float, uniforms: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Chance of each point for nearest(at + N + so many u's), by integration on a fine line."""
        line = np.arange(-60 * 64, 60 * 64 + 1) / 64
        density = np.exp(-0.5 * ((line - at) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
        box = np.full(65, 1 / 64)
        box[[0, -1]] /= 2
        for _ in range(uniforms + 1):  # and once more: the integral over each point's own step
            density = np.convolve(density, box, "same")
        return density[::64]

    signals = (0.3, -1.45)
    both = np.convolve(rounded(signals[0], width, 0), rounded(signals[1], width, 0), "same")
    wanted = rounded(sum(signals), width * math.sqrt(2), 1)
    # The line is cut into 64 parts a step, and both sides are cut alike.
    assert np.abs(both - wanted).max() < 1e-12 and both.sum() == pytest.approx(1.0)
    rough = np.convolve(rounded(signals[0], 0.3, 0), rounded(signals[1], 0.3, 0), "same")
    assert np.abs(rough - rounded(sum(signals), 0.3 * math.sqrt(2), 1)).max() > 1e-4, "noise between two points would not do"


def test_noise_is_normal_and_of_the_systems_own_randomness() -> None:
    rows = []
    for _ in range(2):
        np.random.seed(5)
        rows.append(secret_normal(100_001))
    assert not np.array_equal(*rows)
    for row in rows:
        assert row.shape == (100_001,) and abs(float(row.mean())) < 0.02 and float(row.std()) == pytest.approx(1, abs=0.02)
        assert float((row**4).mean()) == pytest.approx(3, abs=0.2)
        assert abs(float(np.corrcoef(row[:-1], row[1:])[0, 1])) < 0.02 and float(np.abs(row).max()) < MOST_DEVIATIONS
    lowest = math.sqrt(-2 * math.log(2.0**-53))
    assert lowest < MOST_DEVIATIONS, "the farthest that 53 bits reach"


def test_every_round_is_paid_before_it_begins(tmp_path: Path) -> None:
    home, short = Home(tmp_path), invite(promised(replace(GOOD, rounds=2)), SIGNERS[0])
    assert read_spent(home, short) == 0
    first = spend(home, short)
    assert (first.kind, first.facts["rounds"], first.facts["unit"], first.facts["of_epsilon"]) == ("federate.spent", 1, "record", 8.0)
    assert read_spent(home, short) == 1 and 0 < float(str(first.facts["epsilon"])) < 8.0
    assert MAKERS["federate"].sentences["federate.spent"](first.facts).startswith("spent a record's privacy: ε ")
    second = spend(home, short)
    assert float(str(second.facts["epsilon"])) <= 8.0
    with pytest.raises(FederatedError, match="All of the privacy that was promised is spent: 2 rounds, ε 8"):
        spend(home, short)
    assert read_spent(home, short) == 2
    folder = folder_of(home, short)
    for damaged in ("two", "[]", '{"rounds": "many"}'):
        (folder / SPENT).write_text(damaged)
        with pytest.raises(HomeError, match="must say how much privacy was spent"):
            spend(home, short)
    (folder / SPENT).unlink()
    keep_said(home, short, 2, ())
    with pytest.raises(HomeError, match="no such file"):  # it took part, so something was spent
        spend(home, short)
