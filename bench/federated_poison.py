"""Homes that poison what is learned together: how far each way of combining holds, beside a street without them.

Ten homes, of which the last two attack from the fourth round on; the attacks are those of tests/federated/poison.py. Attackers know all
that the honest homes learned. Arms: the plain mean (no cut, no votes: what FedAvg does), the rules of open mode, and secure mode. Homes'
data is not alike (Dirichlet 0.5 over eight kinds). Every arm but the plain one runs its real rounds: keys, masks, signatures, votes.

    right       share of the honest homes' held-out things that are told right, after all rounds; clean is the same arm with nobody poisoned
    door        with the attack `backdoor`: the share of things that bear the sign and are taken for the target
    recovered   rounds from the attack's first until the honest held-out loss is no higher than before it; – = never
    suspended   homes that were suspended at the end, and after how many rounds of attack; honest ones are named apart

The learner is a parameter (LEARNERS): a layer of NumPy here, of low rank, as LoRA has it. It is no language model.

python bench/federated_poison.py [--seeds 3] [--rounds 20] [--arms plain,mean,…] [--attacks none,sign,…]
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from harness import ROOT, finish, show

sys.path.insert(0, str(ROOT.parent))
from ingle.core.errors import FederatedError
from ingle.federated.aggregate import added_gain
from ingle.federated.open_round import rule_names
from ingle.federated.terms import from_grid
from tests.federated.homes import KINDS, right
from tests.federated.poison import ATTACKS, Poisoner, opened
from tests.federated.street import Street

HOMES, POISONED, SINCE = 10, 2, 3
LEARNERS: Mapping[str, Callable[..., Street]] = {"kinds": lambda **how: Street(HOMES, task=KINDS, **how)}


@dataclass(frozen=True)
class Outcome:
    """One run."""

    arm: str
    attack: str
    seed: int
    right: float
    door: float
    recovered: int | None
    refused: int
    """Rounds in which nothing went in."""
    split: int
    poisoned_in: int
    """Rounds of attack in which a poisoned home was in the sum that went in."""
    suspended: int
    suspended_after: int | None
    honest_suspended: int


def plain_round(street: Street) -> None:
    """FedAvg: the mean of whatever comes, without a cut or a vote. Homes whose learning has broken stay where they are."""
    grid = street.terms.grid
    try:
        gains = [from_grid(home.train(0), 1, grid).astype(np.float64) for home in street.learners]
    except FederatedError:  # not finite any more
        return
    for home in street.learners:
        factors = added_gain(home.factors, np.mean(gains, axis=0), home.standing.names)
        home.standing = replace(home.standing, factors=factors, accepted=home.standing.accepted + 1)


def run(learner: str, arm: str, attack: str, seed: int, rounds: int) -> Outcome:
    """Run one arm under one attack."""
    rule = arm if arm in rule_names() else ""
    poisoner = ATTACKS.get(attack)
    street = LEARNERS[learner](rule=rule, seed=seed, attack=poisoner, poisoned=POISONED if poisoner else 0)
    poisoners = [home for home in street.learners if isinstance(home, Poisoner)]
    bad = {home.seat for home in poisoners}
    data, first = street.held_out(), street.honest[0]
    losses, refused, split, poisoned_in, after, ever = [first.loss(first.factors, data)], 0, 0, 0, None, set[int]()
    for number in range(rounds):
        for home in poisoners:
            home.attacking = number >= SINCE
        if arm == "plain":
            plain_round(street)
            poisoned_in += bool(bad) and number >= SINCE
        else:
            verdict = street.round().verdict
            refused += verdict is None or not verdict.accepted
            split += verdict is not None and bool(verdict.groups)
            poisoned_in += number >= SINCE and verdict is not None and verdict.accepted and bool(bad & set(verdict.survivors))
            ever |= set(first.standing.suspicion.suspended)
            after = number + 1 - SINCE if after is None and bad and bad <= ever else after
        losses.append(first.loss(first.factors, data))
    recovered = next((at - SINCE for at in range(SINCE + 1, rounds + 1) if losses[at] <= losses[SINCE]), None)
    return Outcome(
        arm, attack, seed, right(first.factors, data), opened(first.factors, data), recovered, refused, split, poisoned_in,
        len(ever & bad), after, len(ever - bad),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learner", default="kinds", choices=sorted(LEARNERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--arms", default=",".join(("plain", *rule_names(), "secure")))
    parser.add_argument("--attacks", default=",".join(("none", *ATTACKS)))
    args = parser.parse_args()
    arms, attacks = args.arms.split(","), args.attacks.split(",")
    outcomes = []
    for arm, attack, seed in itertools.product(arms, attacks, range(args.seeds)):
        outcomes.append(run(args.learner, arm, attack, seed, args.rounds))
        print(outcomes[-1], file=sys.stderr, flush=True)
    table(arms, attacks, outcomes)
    finish("federated_poison", {"runs": [asdict(one) for one in outcomes]})


def table(arms: list[str], attacks: list[str], outcomes: list[Outcome]) -> None:
    """Print what each arm came to, the mean over seeds with the range."""
    of = {(arm, attack): [one for one in outcomes if (one.arm, one.attack) == (arm, attack)] for arm in arms for attack in attacks}

    def rights(arm: str, attack: str) -> str:
        values = [one.right for one in of[arm, attack]]
        return f"{statistics.mean(values):.3f} ({min(values):.2f}–{max(values):.2f})"

    show("told right", [("attack", *arms), *((attack, *(rights(arm, attack) for arm in arms)) for attack in attacks)])
    if "none" in attacks:
        ratio = {key: statistics.mean(one.right for one in runs) for key, runs in of.items()}
        rows = [(attack, *(f"{ratio[arm, attack] / ratio[arm, 'none']:.2f}" for arm in arms)) for attack in attacks]
        show("of clean", [("attack", *arms), *rows])
    if "backdoor" in attacks:
        rows = [
            (attack, *(f"{statistics.mean(one.door for one in of[arm, attack]):.2f}" for arm in arms))
            for attack in attacks
            if attack in ("none", "backdoor")
        ]
        show("door", [("attack", *arms), *rows])
    rows = [
        (one.arm, one.attack, one.seed, "–" if one.recovered is None else one.recovered, one.refused, one.split, one.poisoned_in,
         one.suspended, one.suspended_after or "–", one.honest_suspended)
        for one in outcomes if one.arm == "secure"
    ]  # fmt: skip
    head = ("arm", "attack", "seed", "recovered", "refused", "split", "poisoned in", "suspended", "after", "honest suspended")
    show("secure mode", [head, *rows])
    rows = [(attack, *("/".join("–" if one.recovered is None else str(one.recovered) for one in of[arm, attack]) for arm in arms))
            for attack in attacks]  # fmt: skip
    show("rounds until recovery, by seed", [("attack", *arms), *rows])


if __name__ == "__main__":
    main()
