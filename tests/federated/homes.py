"""Homes that learn, small enough for tests: a linear layer in NumPy, whose own data each home keeps. The learning and the votes are real.

Not a language model: training one is the worker's part, and its own tests'. All homes see the same truth through inputs of their own kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingle.core.event import Event
from ingle.federated.aggregate import A, B, added_gain, first_factors, flat_gain, trained_names
from ingle.federated.invitation import Invitation, invite
from ingle.federated.message import Letter
from ingle.federated.node import HomeNode, RoundWork, responder
from ingle.federated.quantise import Whole, from_grid, to_grid
from ingle.federated.secure_sum import Opened, take_seat
from ingle.federated.terms import fewest_of
from ingle.federated.verdict import RoundVerdict, verdict_event
from ingle.ledger.keys import Signer

LINEAR, OUTPUTS, INPUTS, RANK = "model.layers.0.mlp.up_proj", 6, 8, 2
BASE = "a" * 64
Row = npt.NDArray[np.float64]


def invited(signers: list[Signer], aggregation: str = "alternate", reach: float = 1.0) -> Invitation:
    members = tuple(signer.verifier.public for signer in signers)
    return invite(
        Invitation(
            name="street", base=BASE, coordinator=members[0], members=members, threshold=fewest_of(len(members)), rounds=20,
            expires="2100-01-01T00:00:00Z", aggregation=aggregation, rank=RANK, seed=3, reach=reach,
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
    factors: dict[str, npt.NDArray[np.float32]] = field(init=False)
    remembered: list[int] = field(default_factory=list)
    opened: Opened = ()
    verdicts: list[RoundVerdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.factors = first_factors({LINEAR: (OUTPUTS, INPUTS)}, RANK, self.invitation.seed)
        truth = np.random.default_rng(0)
        wanted = truth.normal(size=(OUTPUTS, RANK)) @ truth.normal(size=(RANK, INPUTS))
        rng = np.random.default_rng(100 + self.seat)
        scale = np.ones(INPUTS) * 0.05
        scale[[(self.seat * 2 + at) % INPUTS for at in range(4)]] = 1.0  # each home sees half of the inputs well: not IID
        inputs = rng.normal(size=(80, INPUTS)) * scale
        answers = inputs @ wanted.T + rng.normal(size=(80, OUTPUTS)) * 0.01
        self.learned, self.held_out = (inputs[:60], answers[:60]), (inputs[60:], answers[60:])

    def loss(self, factors: Mapping[str, npt.NDArray[np.float32]], data: tuple[Row, Row]) -> float:
        inputs, answers = data
        return float(np.square(inputs @ (factors[LINEAR + B] @ factors[LINEAR + A]).T - answers).mean())

    def names(self, number: int) -> tuple[str, ...]:
        # A round that was refused is not counted: the same factor is trained again.
        return trained_names(self.factors, self.invitation.aggregation, 1 + sum(one.accepted for one in self.verdicts))

    def train(self, number: int) -> Whole:
        inputs, answers = self.learned
        a, b = (self.factors[LINEAR + end].astype(np.float64) for end in (A, B))
        for _ in range(80):
            error = (inputs @ (b @ a).T - answers).T @ inputs / len(inputs)
            a, b = (a, b - 0.2 * error @ a.T) if self.names(number) == (LINEAR + B,) else (a - 0.05 * b.T @ error, b)
        after = {LINEAR + A: a.astype(np.float32), LINEAR + B: b.astype(np.float32)}
        gain = flat_gain(self.factors, after, self.names(number)) * self.poison
        return to_grid(gain, self.invitation.terms().grid)[0]

    def candidate(self, total: Whole, homes: int) -> dict[str, npt.NDArray[np.float32]]:
        names = self.names(0)
        return added_gain(self.factors, from_grid(total, homes, self.invitation.terms().grid), names)

    def judge(self, number: int, total: Whole, homes: int) -> bool:
        return self.loss(self.candidate(total, homes), self.held_out) <= self.loss(self.factors, self.held_out)

    def settle(self, verdict: RoundVerdict, total: Whole, letter: Letter) -> None:
        if verdict.accepted:
            self.factors = self.candidate(total, len(verdict.survivors))
        self.verdicts.append(verdict)
        self.sink(verdict_event(verdict, self.invitation.name))

    def remember(self, number: int, opened: Opened) -> None:
        self.remembered.append(number)
        self.opened = opened

    def length(self, number: int) -> int:
        return sum(self.factors[name].size for name in self.names(number))

    def node(self, signer: Signer, last_round: int = 0) -> HomeNode:
        member = take_seat(self.invitation.terms(), signer, last_round, self.opened)
        return HomeNode(member, self.invitation.base, self.length, RoundWork(self.train, self.judge, self.remember, self.settle))

    def responder(self, signer: Signer) -> Callable[[bytes], bytes]:
        return responder(self.node(signer))
