"""A home's own part in a federation: what it has learned, its gate's vote, its ledger's rows, and in the end one delta.

Nothing is held in memory between two letters but the round's own secrets: a home that is killed reads where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.errors import FederatedError
from ingle.core.event import Sink
from ingle.engine.adapter import linear_shapes
from ingle.engine.source import open_weights
from ingle.federated.aggregate import Tensors, flat_gain
from ingle.federated.invitation import Invitation, check_invitation
from ingle.federated.node import HomeNode, RoundWork
from ingle.federated.quantise import Whole, to_grid
from ingle.federated.secure_sum import take_seat
from ingle.federated.standing import FederationStanding, keep_said, keep_standing, read_said, read_standing
from ingle.federated.suspicion import suspension_event
from ingle.federated.verdict import RoundVerdict, verdict_event
from ingle.gate.decide import judge
from ingle.gate.policy import Policy
from ingle.gate.trial import Trial
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.ledger.keys import Signer

MAKER = "federate"
MOST_RISE = 0.02
"""The share by which a home's own loss may rise over its least so far. The gate compares with the model of the beginning: by its limits
alone, poison could undo all that was learned since."""
Learn = Callable[[Tensors, Sequence[str], int], Mapping[str, npt.NDArray[np.float32]]]
"""Factors, which of them may change, round → the factors after learning from this home's own examples."""


@dataclass(frozen=True)
class Taking:
    """A home that takes part: its model, what it agreed to, and how it learns."""

    home: Home
    kept: Kept
    """The model that the invitation is about."""
    invitation: Invitation
    learn: Learn
    policy: Policy
    """The owner's limits: the gate votes by them."""
    sink: Sink
    loss: Callable[[Tensors], float] | None = None
    """Factors → the loss on examples that this home keeps apart. A home without it votes by its gate alone."""

    @property
    def standing(self) -> FederationStanding:
        """Where it is, read from the home."""
        return read_standing(self.home, self.invitation, linear_shapes(open_weights(self.home, self.kept).config))


def node_of(taking: Taking, signer: Signer) -> HomeNode:
    """Return the home as it answers a coordinator, from where it was.

    Raises FederatedError for an invitation that was altered or is about another model, ConfigError for terms that protect nobody.
    """
    check_invitation(taking.invitation)
    if taking.kept.digest != taking.invitation.base:
        rule = f"The invitation is about model {taking.invitation.base[:12]}, and {taking.kept.name} here is {taking.kept.digest[:12]}"
        raise FederatedError("base", rule, "", "Pull the same model, without deltas of your own.")
    standing = taking.standing
    member, joined = take_seat(taking.invitation.terms(), signer, *read_said(taking.home, taking.invitation))
    work = RoundWork(
        lambda number: _train(taking, number),
        lambda _, total, homes: _judge(taking, total, homes),
        lambda number, opened: keep_said(taking.home, taking.invitation, number, opened),
        lambda verdict, total: _settle(taking, verdict, total),
    )
    return HomeNode(
        member, joined, standing.base, lambda _: taking.standing.length, work, settled=standing.settled, suspicion=standing.suspicion
    )


def candidate_of(taking: Taking, standing: FederationStanding, factors: Tensors, name: str) -> Candidate:
    """Return factors as a change that a gate can judge. All homes make the same of the same factors, down to its digest."""
    invitation = standing.invitation
    origin = {
        "command": MAKER, "federation": invitation.digest, "rounds": str(standing.accepted), "last": standing.base,
        "aggregation": invitation.aggregation, "rank": str(invitation.rank), "seed": str(invitation.seed),
        "homes": str(len(invitation.members)),
    }  # fmt: skip
    return Candidate(name, "lora", taking.kept.digest, factors, origin)


def _train(taking: Taking, number: int) -> Whole:
    standing = taking.standing
    after = taking.learn(standing.factors, standing.names, number)
    return to_grid(flat_gain(standing.factors, after, standing.names), taking.invitation.terms().grid)[0]


def _judge(taking: Taking, total: Whole, homes: int) -> bool:
    standing = taking.standing
    factors = standing.with_sum(total, homes)
    if taking.loss is not None:
        now = taking.loss(standing.factors)
        least = min(now, standing.least)
        # What is better than now is welcome, also where poison went in before: the way back takes several rounds.
        if not taking.loss(factors) <= max(now, least * (1 + MOST_RISE)):  # not a number is no
            return False
    candidate = candidate_of(taking, standing, factors, taking.invitation.name)
    trial = Trial(taking.home, taking.kept, candidate)
    findings = judge(trial, taking.policy, MAKER)
    if trial.packed_alone:
        discard(taking.home, trial.source.packs)
    return all(finding.passed for finding in findings)


def _settle(taking: Taking, verdict: RoundVerdict, total: Whole) -> None:
    before, name = taking.standing, f"{taking.kept.name}+{taking.invitation.name}"
    after = before.after(verdict, total)
    if taking.loss is not None and verdict.accepted:
        after = replace(after, least=min(before.least, taking.loss(before.factors), taking.loss(after.factors)))
    # The fact comes first, as at the gate: there is never a change without one.
    taking.sink(verdict_event(verdict, name))
    for seat in sorted(set(after.suspicion.suspended) - set(before.suspicion.suspended)):
        taking.sink(suspension_event(taking.invitation.terms(), verdict, seat, name))
    keep_standing(taking.home, after)
