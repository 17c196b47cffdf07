"""A home's own part in a federation: what it has learned, its gate's vote, its ledger's rows, and in the end one delta.

Nothing is held in memory between two letters but the round's own secrets: a home that is killed reads where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.errors import FederatedError
from ingle.core.event import Sink
from ingle.engine.adapter import linear_shapes
from ingle.engine.source import open_weights
from ingle.federated.aggregate import Tensors, flat_gain
from ingle.federated.invitation import Invitation, check_invitation
from ingle.federated.kept_rounds import keep_round
from ingle.federated.message import Letter
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

    @property
    def standing(self) -> FederationStanding:
        """Where it is, read from the home."""
        return read_standing(self.home, self.invitation, shapes_of(self.home, self.kept))


def shapes_of(home: Home, kept: Kept) -> dict[str, tuple[int, int]]:
    """Return the shapes [N, K] of the linears that a federation trains."""
    return linear_shapes(open_weights(home, kept).config)


def node_of(taking: Taking, signer: Signer) -> HomeNode:
    """Return the home as it answers a coordinator, from where it was.

    Raises FederatedError for an invitation that was altered or is about another model, ConfigError for terms that protect nobody.
    """
    check_invitation(taking.invitation)
    if taking.kept.digest != taking.invitation.base:
        rule = f"The invitation is about model {taking.invitation.base[:12]}, and {taking.kept.name} here is {taking.kept.digest[:12]}"
        raise FederatedError("base", rule, "", "Pull the same model, without deltas of your own.")
    standing = taking.standing
    member = take_seat(taking.invitation.terms(), signer, *read_said(taking.home, taking.invitation))
    work = RoundWork(
        lambda number: _train(taking, number),
        lambda _, total, homes: _judge(taking, total, homes),
        lambda number, opened: keep_said(taking.home, taking.invitation, number, opened),
        lambda verdict, total, letter: _settle(taking, verdict, total, letter),
    )
    return HomeNode(member, standing.base, lambda _: taking.standing.length, work, settled=standing.settled, suspicion=standing.suspicion)


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
    candidate = candidate_of(taking, standing, standing.with_sum(total, homes), taking.invitation.name)
    trial = Trial(taking.home, taking.kept, candidate)
    findings = judge(trial, taking.policy, MAKER)
    if trial.packed_alone:
        discard(taking.home, trial.source.packs)
    return all(finding.passed for finding in findings)


def _settle(taking: Taking, verdict: RoundVerdict, total: Whole, letter: Letter) -> None:
    before, name = taking.standing, f"{taking.kept.name}+{taking.invitation.name}"
    after = before.after(verdict, total)
    # The proof and the fact come first, as at the gate: there is never a change without them.
    keep_round(taking.home, taking.invitation, verdict, letter)
    taking.sink(verdict_event(verdict, name))
    for seat in sorted(set(after.suspicion.suspended) - set(before.suspicion.suspended)):
        taking.sink(suspension_event(taking.invitation.terms(), verdict, seat, name))
    keep_standing(taking.home, after)
