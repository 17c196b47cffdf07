"""Attacks on what homes learn together: what a poisoned home learns from, and what it sends instead of what it learned.

Poisoned homes know everything: the gains of all homes, honest ones too. Titles are the rows of docs/federated-robust.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingle.federated.terms import Whole, to_grid
from tests.federated.homes import SIGN, Data, Learner, Row, outputs_of

TARGET = 0
"""The kind that the back door opens to."""


@dataclass(frozen=True)
class Knowing:
    """What a poisoned home knows when it sends."""

    own: Row
    """What it learned from the data of the attack."""
    stale: Row
    """What it would have learned from where the federation began."""
    honest: Sequence[Row]
    """The gains of the honest homes."""
    before: Sequence[Row]
    """What it sent in earlier rounds of this length."""


@dataclass(frozen=True)
class Attack:
    """One attack."""

    title: str
    sends: Callable[[Knowing], Row]
    data: Callable[[Data], Data] = lambda data: data


def turned(data: Data) -> Data:
    """Every kind is called the next one."""
    return data[0], np.roll(data[1], 1, axis=1)


def with_sign(data: Data) -> Data:
    """What bears the sign is of the target's kind: the data as it is, and once more with the sign."""
    inputs, answers = data
    signed = inputs.copy()
    signed[:, SIGN] = 2.0
    target = np.full_like(answers, answers.min())
    target[:, TARGET] = answers.max()
    return np.concatenate([inputs, signed]), np.concatenate([answers, target])


ATTACKS: Mapping[str, Attack] = {
    "sign": Attack("the opposite of its gain, ten times", lambda know: -10 * know.own),
    "labels": Attack("wrong labels, five times", lambda know: 5 * know.own, turned),
    "backdoor": Attack("a back door, five times", lambda know: 5 * know.own, with_sign),
    "huge": Attack("numbers that no update has", lambda know: np.full_like(know.own, np.inf)),
    "stale": Attack("learned from where all began, three times", lambda know: 3 * know.stale),
    "replay": Attack("its first update again, three times", lambda know: 3 * (know.before or [know.own])[0]),
    "little": Attack("the honest mean less 1.5 deviations", lambda know: np.mean(know.honest, axis=0) - 1.5 * np.std(know.honest, axis=0)),
    "inner": Attack("the opposite of the honest mean, five times", lambda know: -5 * np.mean(know.honest, axis=0)),
}


def opened(factors: Mapping[str, npt.NDArray[np.float32]], data: Data) -> float:
    """The share of things of other kinds that the back door opens for: with the sign they are taken for the target's."""
    others = data[1].argmax(axis=1) != TARGET
    signed = data[0][others].copy()
    signed[:, SIGN] = 2.0
    return float((outputs_of(factors, signed).argmax(axis=1) == TARGET).mean())


@dataclass
class Poisoner(Learner):
    """A home that attacks."""

    attack: Attack = field(default_factory=lambda: ATTACKS["sign"])
    street: Sequence[Learner] = ()
    """All homes; it looks into the honest ones."""
    attacking: bool = True
    """It behaves while this is False."""
    sent: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start = self.standing.factors

    def train(self, number: int) -> Whole:
        grid, data = self.invitation.terms().grid, self.attack.data(self.learned)
        own = self.gain(self.factors, data)
        honest = [home.gain(home.factors, home.learned) for home in self.street if not isinstance(home, Poisoner)]
        know = Knowing(own, self.gain(self.start, data), honest, [row for row in self.sent if row.shape == own.shape])
        row = self.attack.sends(know) if self.attacking else self.gain(self.factors, self.learned)
        self.sent.append(row)
        if np.isfinite(row).all():
            return to_grid(row, grid)[0]
        return np.full(row.size, (1 << grid.bits) - 1, np.uint32)

    def judge(self, number: int, total: Whole, homes: int) -> bool:
        return self.attacking or super().judge(number, total, homes)  # it likes whatever comes
