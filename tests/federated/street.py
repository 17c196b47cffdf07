"""Homes of one federation and their coordinator in one process. Tests may change or drop what goes by, or poison homes."""

from collections.abc import Callable

import numpy as np

from ingle.core.errors import IngleError
from ingle.core.report import Event
from ingle.federated.rounds import EndedRound, Round, gather, run_round
from ingle.federated.statement import from_bytes
from ingle.federated.transport import Ask, local
from ingle.ledger.keys import Signer, new_signer
from tests.federated.homes import BASE, TRUTH, Data, Learner, Task, invited
from tests.federated.poison import Attack, Poisoner
from tests.waiting import PATIENCE_S

SIGNERS = [new_signer() for _ in range(12)]
Between = Callable[[str, int, bytes], bytes | None]
"""Stage, seat, the reply's bytes → what arrives of them; None = nothing."""


def as_it_is(_stage: str, _seat: int, data: bytes) -> bytes:
    return data


class Street:
    """The homes and what their coordinator knows."""

    def __init__(
        self, homes: int = 4, sinks: list[Callable[[Event], object]] | None = None, poison: tuple[float, ...] = (), reach: float = 1.0,
        rule: str = "", task: Task = TRUTH, seed: int = 0, attack: Attack | None = None, poisoned: int = 0,
    ) -> None:  # fmt: skip
        self.signers: list[Signer] = SIGNERS[:homes]
        self.invitation = invited(self.signers, reach=reach, rule=rule, rank=task.rank, seed=3 + seed)
        self.terms = self.invitation.terms()
        self.events: list[list[Event]] = [[] for _ in range(homes)]
        hears = sinks or [events.append for events in self.events]
        factors = poison or (1.0,) * homes
        self.learners = [Learner(seat, self.invitation, hears[seat], factors[seat], task, seed) for seat in range(homes)]
        if attack:  # the last homes, so that the coordinator's is honest
            for seat in range(homes - poisoned, homes):
                self.learners[seat] = Poisoner(seat, self.invitation, hears[seat], 1.0, task, seed, attack=attack, street=self.learners)
        self.responders = {seat: self.learners[seat].responder(self.signers[seat]) for seat in range(homes)}
        self.complaints: list[tuple[int, str]] = []
        self.base, self.number = BASE, 0
        self.joined = tuple(gather(self.terms, self.ask(), PATIENCE_S, self.complain))

    @property
    def honest(self) -> list[Learner]:
        return [home for home in self.learners if not isinstance(home, Poisoner)]

    def held_out(self) -> Data:
        """What the honest homes judge by, all of it."""
        inputs, answers = zip(*(home.held_out for home in self.honest), strict=True)
        return np.concatenate(inputs), np.concatenate(answers)

    def complain(self, seat: int, error: IngleError) -> None:
        self.complaints.append((seat, str(error)))

    def ask(self, between: Between = as_it_is) -> Ask:
        def through(seat: int) -> Callable[[bytes], bytes | None]:
            def respond(data: bytes) -> bytes | None:
                return between(from_bytes(data).kind, seat, self.responders[seat](data))

            return respond

        return local({seat: through(seat) for seat in self.responders})

    def round(self, between: Between = as_it_is) -> EndedRound:
        suspended = self.learners[self.joined[0]].standing.suspicion.suspended
        here = tuple(seat for seat in self.joined if seat not in suspended)
        now = Round(self.terms, self.number + 1, self.base, self.learners[self.joined[0]].length(0), here)
        ended = run_round(now, self.ask(between), PATIENCE_S, self.complain)
        self.number = ended.number
        if ended.verdict:
            self.base = ended.verdict.next_base
        return ended
