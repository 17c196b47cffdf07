"""Homes that sum, for tests: each step called by hand, so that a test can drop a home or lie at any of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingle.federated.secure_sum import Member, RoundPart, agree, begin, greet, hide, meet, open_sum, reveal, take_seat
from ingle.federated.statement import Statement
from ingle.federated.terms import Grid, Terms, Whole, fewest_of, to_grid
from ingle.ledger.keys import Signer, new_signer

BASE = "b" * 64


def signers(homes: int) -> list[Signer]:
    return [new_signer() for _ in range(homes)]


def terms_of(keys: list[Signer], threshold: int | None = None, bits: int = 16) -> Terms:
    members = tuple(key.verifier.public for key in keys)
    grid = Grid(reach=1.0, bits=bits, homes=len(keys))
    return Terms("f" * 64, members, threshold or fewest_of(len(keys)), grid)


def joined(keys: list[Signer], terms: Terms) -> list[Member]:
    seated = [take_seat(terms, key) for key in keys]
    statements = [greet(member) for member in seated]
    return [meet(member, statements) for member in seated]


def drawn(terms: Terms, seed: int, length: int = 7) -> list[Whole]:
    rng = np.random.default_rng(seed)
    return [to_grid(rng.uniform(-1.2, 1.2, length), terms.grid)[0] for _ in terms.members]


@dataclass
class Round:
    """A round as an honest coordinator has it; tests change what they like between the steps."""

    terms: Terms
    number: int
    parts: dict[int, RoundPart]
    keys: dict[int, Statement]
    sealed: dict[int, Mapping[int, str]]
    said: dict[int, Statement] = field(default_factory=dict)
    payloads: dict[int, bytes] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    agreed: dict[int, Statement] = field(default_factory=dict)
    told: dict[int, Statement] = field(default_factory=dict)
    done: dict[int, RoundPart] = field(default_factory=dict)

    def shares_for(self, seat: int) -> dict[int, str]:
        return {sender: sealed[seat] for sender, sealed in self.sealed.items() if seat in sealed}

    def hide(self, seat: int, update: Whole, roster: Collection[Statement] | None = None) -> None:
        keys = list(self.keys.values()) if roster is None else list(roster)
        self.lengths[seat] = update.size
        self.parts[seat], self.said[seat], self.payloads[seat] = hide(self.parts[seat], keys, self.shares_for(seat), update)

    def agree(self, seat: int, updates: Collection[Statement] | None = None) -> None:
        chosen = list(self.said.values()) if updates is None else list(updates)
        self.parts[seat], self.agreed[seat] = agree(self.parts[seat], chosen)

    def reveal(self, seat: int, agreed: Collection[Statement] | None = None) -> None:
        chosen = list(self.agreed.values()) if agreed is None else list(agreed)
        self.done[seat], self.told[seat] = reveal(self.parts[seat], chosen)

    def open(self) -> Whole:
        length = next(iter(self.lengths.values()), 1)
        return open_sum(self.terms, self.number, length, self.keys, self.payloads, self.told)


def started(homes: list[Member], number: int = 1, seats: Collection[int] | None = None) -> Round:
    here = range(len(homes)) if seats is None else seats
    parts: dict[int, RoundPart] = {}
    messages: dict[int, Any] = {}
    for seat in here:
        parts[seat], messages[seat] = begin(homes[seat], number, BASE)
    keys = {seat: messages[seat]["statement"] for seat in here}
    return Round(homes[0].terms, number, parts, keys, {seat: messages[seat]["sealed"] for seat in here})


def whole_round(homes: list[Member], updates: list[Whole], stays: Callable[[int, str], bool], number: int = 1) -> Round:
    """A round in which a home drops out before the first step at which `stays` is False."""
    steps = ("keys", "update", "agree", "shares")
    left = {step: [seat for seat in range(len(homes)) if all(stays(seat, s) for s in steps[: at + 1])] for at, step in enumerate(steps)}
    now = started(homes, number, left["keys"])
    for seat in left["update"]:
        now.hide(seat, updates[seat])
    for seat in left["agree"]:
        now.agree(seat)
    for seat in left["shares"]:
        now.reveal(seat)
    return now
