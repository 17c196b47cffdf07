"""A home's own part in a federation: its learning, the privacy it spent, its gate's vote, its ledger's rows, the delta in the end, audits.

Nothing is held in memory between two letters but the round's own secrets: a home that is killed reads where it was.

A home learns from its own files, in another process (tuning/homework.py), and never from what it votes by. Privacy that it has spent stands
in HOME/federated/KEY/spent.json, which is written before anything leaves. A round counts when its noisy update is made, whatever becomes of
it. So after a kill it may be counted too high, never too low. Learning that fails before costs nothing: nothing of it leaves.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.digest import canonical_json, digest_json
from ingle.core.errors import ConfigError, FederatedError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.core.report import Event, Fact, Sink
from ingle.engine.adapter import linear_shapes
from ingle.engine.packs import open_weights
from ingle.federated.aggregate import Tensors, aggregation, flat_gain, trained_names
from ingle.federated.home_node import HomeNode, RoundWork
from ingle.federated.invitation import Invitation, check_invitation, spent_epsilon, step_length, with_noise
from ingle.federated.secure_sum import take_seat
from ingle.federated.standing import (
    FederationStanding,
    first_standing,
    folder_of,
    keep_round,
    keep_said,
    keep_standing,
    read_said,
    read_standing,
    replay,
    same_factors,
)
from ingle.federated.statement import Letter
from ingle.federated.terms import Whole, to_grid
from ingle.federated.verdict import RoundVerdict, suspension_event, verdict_event
from ingle.gate.check import Policy
from ingle.gate.decide import judge
from ingle.gate.trial import Probes, Trial
from ingle.home.kept import Kept, list_kept
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.ledger.chain import Ledger
from ingle.ledger.keys import Signer
from ingle.tuning.homework import Arrays, HeldOutExample, Homework, HomeworkDone, do_apart, read_done, write_done
from ingle.tuning.linears import chosen_layers, chosen_linears

# In the federation's folder: a round's learning, which is gone afterwards; and held-out examples, until a round is accepted.
WORK, OWN = "homework", "own.safetensors"
# Factors, which of them may change, round → the factors after learning from this home's own examples.
Learn = Callable[[Tensors, Sequence[str], int], Mapping[str, npt.NDArray[np.floating]]]
Do = Callable[[Homework, Arrays, Path], HomeworkDone]


def learner(home: Home, kept: Kept, invitation: Invitation, sources: Sequence[str], do: Do = do_apart) -> Learn:
    """Return how this home learns from these files, folders (absolute paths) and `suite:NAME`, as the invitation says.

    What it returns raises what `do_apart` does, and HomeError. With privacy of a record it moves the factors along the sum of the cut
    gradients, in float64; the noise comes after (`with_noise`).
    """
    private = invitation.privacy.unit == "record"

    def learn(factors: Tensors, names: Sequence[str], number: int) -> Mapping[str, npt.NDArray[np.floating]]:
        seed = int(digest_json([invitation.digest, number])[:15], 16)
        clip, share = (invitation.privacy.clip, invitation.privacy.share) if private else (0.0, 1.0)
        homework = Homework(str(home.root), kept, tuple(sources), invitation.learning, tuple(names), seed, clip, share)
        done = do(homework, factors, folder_of(home, invitation) / WORK)
        write_done(folder_of(home, invitation) / OWN, HomeworkDone({}, done.held_out))
        if not private:
            return {**factors, **done.tensors}
        length = step_length(invitation)
        return {**factors, **{name: factors[name].astype(np.float64) - length * done.tensors[name] for name in names}}

    return learn


def read_own(home: Home, invitation: Invitation) -> tuple[HeldOutExample, ...]:
    """Return this home's own held-out examples, as its last learning left them; none if it left none. Raises HomeError."""
    path = folder_of(home, invitation) / OWN
    return read_done(path).held_out if path.exists() else ()


def drop_own(home: Home, invitation: Invitation) -> None:
    """Delete them: they are of use for votes on one update. Raises HomeError."""
    path = folder_of(home, invitation) / OWN
    with os_errors(path):
        path.unlink(missing_ok=True)


SPENT = "spent.json"


def read_spent(home: Home, invitation: Invitation) -> int:
    """Return how many rounds were paid for. Raises HomeError for a file that is damaged, or gone although this home took part."""
    path = folder_of(home, invitation) / SPENT
    cure = "Leave this federation: without it nobody knows what was promised already. A new invitation begins anew."
    if not path.exists():
        if read_said(home, invitation)[0]:
            raise HomeError(str(path), "must say how much privacy was spent", "no such file", cure)
        return 0
    with os_errors(path):
        data = path.read_bytes()
    try:
        return int(json.loads(data)["rounds"])
    except (ValueError, KeyError, TypeError) as error:
        raise HomeError(str(path), "must say how much privacy was spent", error, cure) from error


def next_round(home: Home, invitation: Invitation) -> int:
    """Return which round will be paid for next. Raises FederatedError where all was spent, HomeError."""
    rounds = read_spent(home, invitation) + 1
    if rounds > invitation.rounds:
        rule = f"All of the privacy that was promised is spent: {invitation.rounds} rounds, ε {invitation.privacy.epsilon:g}"
        raise FederatedError("privacy", rule, "", "Go on under a new invitation; what both spend adds up.")
    return rounds


def spend(home: Home, invitation: Invitation) -> Event:
    """Pay for one more round, on the disk. Returns the fact of it. Raises FederatedError where all was spent, HomeError."""
    rounds, of = next_round(home, invitation), invitation.privacy
    path = folder_of(home, invitation) / SPENT
    with os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, canonical_json({"rounds": rounds}), mode=0o600)
    facts: dict[str, Fact] = {
        "federation": invitation.digest, "unit": of.unit, "rounds": rounds, "epsilon": round(spent_epsilon(invitation, rounds), 4),
        "delta": of.delta, "of_epsilon": of.epsilon,
    }  # fmt: skip
    return Event("federate.spent", invitation.name, facts)


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


# Audit of a federation in one home: every vote is counted again, every sum added again, every row of the ledger compared.


@dataclass(frozen=True, slots=True)
class FederationAudit:
    verdicts: tuple[RoundVerdict, ...]
    problems: tuple[str, ...]  # sentences; none = all is as the homes signed it
    base: str  # digest of where it ends: the same in every home that followed all rounds

    @property
    def sentence(self) -> str:
        if self.problems:
            return " ".join(self.problems)
        return f"All votes, sums and ledger rows agree. Compare with other homes: this one is at {self.base}."

    def table(self) -> dict[str, Any]:
        rounds = [
            {"round": one.number, "homes": len(one.survivors), "yes": len(one.yes), "no": len(one.no), "accepted": one.accepted,
             "digest": one.digest}
            for one in self.verdicts
        ]  # fmt: skip
        return {"rounds": rounds, "problems": list(self.problems), "base": self.base}


def audit(home: Home, invitation: Invitation, ledger: Ledger) -> FederationAudit:
    """Count everything again. Nothing is changed. Raises HomeError for files that can't be read at all."""
    problems: list[str] = []
    try:
        check_invitation(invitation)
    except FederatedError as error:
        problems.append(error.sentence)
    kept = _model(home, invitation)
    shapes = shapes_of(home, kept, invitation)
    start = first_standing(invitation, shapes)
    try:
        reached, verdicts = replay(home, start)
    except HomeError as error:
        return FederationAudit((), (*problems, error.sentence), "")
    now = read_standing(home, invitation, shapes)
    if now.base != reached.base or not same_factors(now.factors, reached.factors):
        problems.append("What this home learned is not the sum of its rounds. Restore its folder from a backup.")
    rows = {row.values.get("digest") for row in ledger.read("federate.round")}
    if missing := [str(one.number) for one in verdicts if one.digest not in rows]:
        problems.append(f"The ledger has no row of round {', '.join(missing)}.")
    return FederationAudit(tuple(verdicts), tuple(problems), reached.base)


def _model(home: Home, invitation: Invitation) -> Kept:
    for kept in list_kept(home):
        if kept.digest == invitation.base:
            return kept
    raise HomeError("base", "The model that the invitation is about is not kept here", invitation.base[:12], "Pull it again.")
