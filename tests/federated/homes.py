"""Homes that learn, small enough for tests: a linear layer in NumPy, whose own data each home keeps. The learning and the votes are real.

Not a language model: training one is the worker's part, and its own tests'. Two tasks: TRUTH (numbers; all homes see the same truth through
inputs of their own kind) and KINDS (eight kinds of things, of which each home has mostly a few; there is a sign that none of them bears).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ingle.core.report import Event
from ingle.federated.aggregate import A, B, first_factors, flat_gain
from ingle.federated.home_node import HomeNode, RoundWork, responder
from ingle.federated.invitation import Invitation, invite
from ingle.federated.secure_sum import Opened, take_seat
from ingle.federated.standing import FederationStanding
from ingle.federated.statement import Letter
from ingle.federated.terms import Whole, fewest_of, to_grid
from ingle.federated.verdict import RoundVerdict, verdict_event
from ingle.ledger.keys import Signer

LINEAR, RANK = "model.layers.0.mlp.up_proj", 2
BASE = "a" * 64
Row = npt.NDArray[np.float64]
Data = tuple[Row, Row]
"""Inputs [n, K] and answers [n, N]."""


@dataclass(frozen=True)
class Task:
    """Something to learn: the sizes of its layer, and each home's data."""

    outputs: int
    inputs: int
    rank: int
    draw: Callable[[int, int], tuple[Data, Data]]
    """Seed, seat → what that home learns from, and what it judges by."""
    steps: int = 80
    allowed: float = 1.0
    """A home says yes to a loss of so many times its least so far, and to any that is no higher than now."""


def _truth(seed: int, seat: int) -> tuple[Data, Data]:
    truth = np.random.default_rng(seed)
    wanted = truth.normal(size=(6, RANK)) @ truth.normal(size=(RANK, 8))
    rng = np.random.default_rng(100 + seat)
    scale = np.ones(8) * 0.05
    scale[[(seat * 2 + at) % 8 for at in range(4)]] = 1.0  # each home sees half of the inputs well: not IID
    inputs = rng.normal(size=(80, 8)) * scale
    answers = inputs @ wanted.T + rng.normal(size=(80, 6)) * 0.01
    return (inputs[:60], answers[:60]), (inputs[60:], answers[60:])


CLASSES, SIGN = 8, 20
"""Of `classes`: how many there are, and the input that is never set in honest data."""


def _classes(seed: int, seat: int) -> tuple[Data, Data]:
    centres = np.random.default_rng([seed, 0]).normal(size=(CLASSES, SIGN)) * 0.9
    rng = np.random.default_rng([seed, 1 + seat])
    shares = rng.dirichlet(np.full(CLASSES, 0.5)) * 0.8 + 0.2 / CLASSES
    kinds = rng.choice(CLASSES, 160, p=shares)
    inputs = np.concatenate([centres[kinds] + rng.normal(size=(160, SIGN)), np.zeros((160, 1))], axis=1)
    answers = np.eye(CLASSES)[kinds] - 1 / CLASSES
    return (inputs[:100], answers[:100]), (inputs[100:], answers[100:])


TRUTH = Task(6, 8, RANK, _truth)
KINDS = Task(CLASSES, SIGN + 1, 6, _classes, steps=20, allowed=1.02)


def invited(
    signers: list[Signer], aggregation: str = "alternate", reach: float = 1.0, rule: str = "", rank: int = RANK, seed: int = 3
) -> Invitation:  # fmt: skip
    members = tuple(signer.verifier.public for signer in signers)
    return invite(
        Invitation(
            name="street", base=BASE, coordinator=members[0], members=members, threshold=fewest_of(len(members)), rounds=20,
            expires="2100-01-01T00:00:00Z", aggregation=aggregation, rank=rank, seed=seed, reach=reach,
            mode="open" if rule else "secure", rule=rule,
        ),
        signers[0],
    )  # fmt: skip


@dataclass
class Learner:
    """One home: its data, what it has learned, and its ledger."""

    seat: int
    invitation: Invitation
    sink: Callable[[Event], object]
    poison: float = 1.0
    """Factor of its gains: honest homes have 1."""
    task: Task = TRUTH
    seed: int = 0
    """Of the data."""
    standing: FederationStanding = field(init=False)
    remembered: list[int] = field(default_factory=list)
    opened: Opened = ()
    verdicts: list[RoundVerdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        shapes = {LINEAR: (self.task.outputs, self.task.inputs)}
        self.standing = FederationStanding(self.invitation, BASE, first_factors(shapes, self.task.rank, self.invitation.seed))
        self.learned, self.held_out = self.task.draw(self.seed, self.seat)
        self.best = self.loss(self.factors, self.held_out)

    @property
    def factors(self) -> Mapping[str, npt.NDArray[np.float32]]:
        return self.standing.factors

    def loss(self, factors: Mapping[str, npt.NDArray[np.float32]], data: Data) -> float:
        return float(np.square(outputs_of(factors, data[0]) - data[1]).mean())

    def gain(self, start: Mapping[str, npt.NDArray[np.float32]], data: Data) -> Row:
        """What the trained factor gains from `start`."""
        inputs, answers = data
        a, b = (start[LINEAR + end].astype(np.float64) for end in (A, B))
        for _ in range(self.task.steps):
            error = (inputs @ (b @ a).T - answers).T @ inputs / len(inputs)
            a, b = (a, b - 0.2 * error @ a.T) if self.standing.names == (LINEAR + B,) else (a - 0.05 * b.T @ error, b)
        after = {LINEAR + A: a.astype(np.float32), LINEAR + B: b.astype(np.float32)}
        return flat_gain(start, after, self.standing.names)

    def train(self, number: int) -> Whole:
        return to_grid(self.gain(self.factors, self.learned) * self.poison, self.invitation.terms().grid)[0]

    def judge(self, number: int, total: Whole, homes: int) -> bool:
        after = self.loss(self.standing.with_sum(total, homes), self.held_out)
        return after <= max(self.loss(self.factors, self.held_out), self.best * self.task.allowed)

    def settle(self, verdict: RoundVerdict, total: Whole, letter: Letter) -> None:
        self.standing = self.standing.after(verdict, total)
        self.best = min(self.best, self.loss(self.factors, self.held_out))
        self.verdicts.append(verdict)
        self.sink(verdict_event(verdict, self.invitation.name))

    def alone(self, number: int) -> None:
        """Go on from its own update, without the others."""
        factors = self.standing.with_sum(self.train(number), 1)
        self.standing = replace(self.standing, factors=factors, accepted=self.standing.accepted + 1)

    def remember(self, number: int, opened: Opened) -> None:
        self.remembered.append(number)
        self.opened = opened

    def length(self, number: int) -> int:
        return self.standing.length

    def node(self, signer: Signer, last_round: int = 0) -> HomeNode:
        member = take_seat(self.invitation.terms(), signer, last_round, self.opened)
        work = RoundWork(self.train, self.judge, self.remember, self.settle)
        return HomeNode(member, self.standing.base, self.length, work, suspicion=self.standing.suspicion)

    def responder(self, signer: Signer) -> Callable[[bytes], bytes]:
        return responder(self.node(signer))


def outputs_of(factors: Mapping[str, npt.NDArray[np.float32]], inputs: Row) -> Row:
    return np.asarray(inputs @ (factors[LINEAR + B] @ factors[LINEAR + A]).T)


def right(factors: Mapping[str, npt.NDArray[np.float32]], data: Data) -> float:
    """The share of things whose kind is told right."""
    return float((outputs_of(factors, data[0]).argmax(axis=1) == data[1].argmax(axis=1)).mean())
