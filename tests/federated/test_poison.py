"""Two of ten homes attack: what each mode lets in, and whether the others still learn. Every round is a real one."""

from functools import cache

import numpy as np
import pytest

from ingle.federated.open_round import rule_names
from ingle.federated.rounds import gather
from tests.federated.homes import KINDS, right
from tests.federated.poison import ATTACKS, Poisoner, opened
from tests.federated.street import Street
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.journey

ROUNDS = 6
ROBUST = [name for name in rule_names() if name != "mean"]


def after(street: Street, rounds: int = ROUNDS) -> tuple[float, float]:
    """The share that is told right after these rounds, and for which the back door opens."""
    for _ in range(rounds):
        street.round()
    return right(street.honest[0].factors, street.held_out()), opened(street.honest[0].factors, street.held_out())


@cache
def undisturbed(rule: str) -> float:
    return after(Street(10, task=KINDS, rule=rule))[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # learning breaks, as it should here
def test_attacks_do_harm_where_nothing_stands_against_them() -> None:
    """Otherwise that homes bear them would show nothing."""
    told = {"": undisturbed("")}
    for attack in ("sign", "labels", "huge", "inner"):
        street = Street(10, task=KINDS, attack=ATTACKS[attack], poisoned=2)
        for home in street.learners:
            home.judge = lambda number, total, homes: True  # type: ignore[method-assign]
        street.responders = {home.seat: home.responder(street.signers[home.seat]) for home in street.learners}
        gather(street.terms, street.ask(), PATIENCE_S, street.complain)
        told[attack] = after(street)[0]
    assert all(told[attack] < 0.8 * told[""] for attack in told if attack), told


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_rules_bear_two_of_ten(rule: str, attack: str) -> None:
    clean = undisturbed(rule)
    poisoned, door = after(Street(10, task=KINDS, rule=rule, attack=ATTACKS[attack], poisoned=2))
    assert poisoned > 0.8 * clean, (poisoned, clean)
    assert door < 0.5 or attack != "backdoor", door


@pytest.mark.parametrize("attack", ["sign", "labels", "huge", "replay"])
def test_votes_keep_poison_out_and_the_others_learn_on(attack: str) -> None:
    street = Street(10, task=KINDS, attack=ATTACKS[attack], poisoned=2)
    first = right(street.honest[0].factors, street.held_out())
    for _ in range(ROUNDS):
        before = [home.loss(home.factors, home.held_out) for home in street.honest]
        ended = street.round()
        rise = [home.loss(home.factors, home.held_out) / old for home, old in zip(street.honest, before, strict=True)]
        assert sum(one <= KINDS.allowed + 0.02 for one in rise) >= 4, (
            "nothing goes in that two thirds of all, so half of the honest, found bad"
        )
        assert ended.verdict is not None and not ended.round.failure
    assert right(street.honest[0].factors, street.held_out()) > first + 0.2
    assert not set(street.honest[0].standing.suspicion.suspended) & {home.seat for home in street.honest}
    shares = [np.concatenate([one.reshape(-1) for one in home.factors.values()]) for home in street.learners]
    assert all((one == shares[0]).all() for one in shares), "all have the same, attackers too"
    assert sum(isinstance(home, Poisoner) for home in street.learners) == 2
