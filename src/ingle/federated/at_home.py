"""A home's own part in a federation: what it has learned, its gate's vote, its ledger's rows, and in the end one delta.

Nothing is held in memory between two letters but the round's own secrets: a home that is killed reads where it was.
"""

from dataclasses import dataclass, replace

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError, FederatedError
from ingle.core.report import Sink
from ingle.engine.adapter import linear_shapes
from ingle.engine.packs import open_weights
from ingle.federated.aggregate import Tensors, aggregation, flat_gain, trained_names
from ingle.federated.homework import Learn, drop_own, read_own
from ingle.federated.invitation import Invitation, check_invitation
from ingle.federated.kept_rounds import keep_round
from ingle.federated.node import HomeNode, RoundWork
from ingle.federated.promise import with_noise
from ingle.federated.rounding import Whole, to_grid
from ingle.federated.secure_sum import take_seat
from ingle.federated.spending import next_round, spend
from ingle.federated.standing import FederationStanding, first_standing, keep_said, keep_standing, read_said, read_standing
from ingle.federated.suspicion import suspension_event
from ingle.federated.verdict import RoundVerdict, verdict_event
from ingle.federated.wire import Letter
from ingle.gate.check import Policy
from ingle.gate.decide import judge
from ingle.gate.trial import Probes, Trial
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.ledger.keys import Signer
from ingle.tuning.linears import chosen_layers, chosen_linears

MAKER = "federate"


@dataclass(frozen=True)
class Taking:
    """A home that takes part: its model, what it agreed to, and how it learns."""

    home: Home
    kept: Kept  # the model that the invitation is about
    invitation: Invitation
    learn: Learn
    policy: Policy  # the owner's limits: the gate votes by them
    sink: Sink

    @property
    def standing(self) -> FederationStanding:
        """Where it is, read from the home."""
        return read_standing(self.home, self.invitation, shapes_of(self.home, self.kept, self.invitation))


def shapes_of(home: Home, kept: Kept, invitation: Invitation) -> dict[str, tuple[int, int]]:
    """Return the shapes [N, K] of the linears that a federation trains."""
    config, learning = open_weights(home, kept).config, invitation.learning
    shapes = linear_shapes(config)
    return {name: shapes[name] for name in chosen_linears(config, chosen_layers(config, learning.layers), learning.targets)}


def node_of(taking: Taking, signer: Signer) -> HomeNode:
    """Return the home as it answers a coordinator, from where it was.

    Raises FederatedError for an invitation that was altered or is about another model, ConfigError for terms that protect nobody.
    """
    check_invitation(taking.invitation)
    if taking.kept.digest != taking.invitation.base:
        rule = f"The invitation is about model {taking.invitation.base[:12]}, and {taking.kept.name} here is {taking.kept.digest[:12]}"
        raise FederatedError("base", rule, "", "Pull the same model, without deltas of your own.")
    standing = taking.standing
    if (most := most_numbers(standing)) > taking.invitation.privacy.numbers and taking.invitation.privacy.unit:
        rule = f"must be at least {most:,}, as many as a round trains of this model"
        raise ConfigError("privacy.numbers", rule, taking.invitation.privacy.numbers, "Its coordinator has counted wrongly.")
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


def most_numbers(standing: FederationStanding) -> int:
    """Return the most numbers that a round trains."""
    name = standing.invitation.aggregation
    rounds = range(1, 1 + len(aggregation(name).trains))
    return max(sum(standing.factors[one].size for one in trained_names(standing.factors, name, number)) for number in rounds)


def counted_numbers(home: Home, kept: Kept, invitation: Invitation) -> Invitation:
    """Return an invitation that names how many numbers a round trains of this model, if it promises privacy."""
    if not invitation.privacy.unit:
        return invitation
    numbers = most_numbers(first_standing(invitation, shapes_of(home, kept, invitation)))
    return replace(invitation, privacy=replace(invitation.privacy, numbers=numbers))


def _train(taking: Taking, number: int) -> Whole:
    standing, terms, promises = taking.standing, taking.invitation.terms(), bool(taking.invitation.privacy.unit)
    if promises:
        next_round(taking.home, taking.invitation)  # raises if there is none: then nothing is learned
    after = taking.learn(standing.factors, standing.names, number)
    gain = flat_gain(standing.factors, after, standing.names)
    if promises:
        taking.sink(spend(taking.home, taking.invitation))
        gain = with_noise(gain, taking.invitation, terms)
    return to_grid(gain, terms.grid)[0]


def _judge(taking: Taking, total: Whole, homes: int) -> bool:
    standing = taking.standing
    name = taking.invitation.name
    candidate = candidate_of(taking, standing, standing.with_sum(total, homes), name)
    so_far = candidate_of(taking, standing, standing.factors, name) if standing.accepted else None
    trial = Trial(taking.home, taking.kept, candidate, Probes(own=read_own(taking.home, taking.invitation)), so_far=so_far)
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
    if verdict.accepted:
        drop_own(taking.home, taking.invitation)
