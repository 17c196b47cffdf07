"""Rounds in the open: each home shows its update, signed; everybody combines them by the invitation's rule, and votes on that.

A home that has the updates of all believes no coordinator: it checks who signed what, combines them itself, and judges what comes out.

To combine them, each is cut to the median length; then a rule makes one of them. The folder `federated/rules` is the registry: a file there
is a rule (see `Rule`), and its first docstring line is its title. All is worked out in whole numbers, or number by number, so that every
home that checks comes to the same last bit, in whatever order the updates came. The result is told as the sum that as many equal updates
would have: judged, signed and followed like a secure sum.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.core import registry
from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, counted
from ingle.federated.secure_sum import LEAVE, Member
from ingle.federated.statement import Statement, believe, state
from ingle.federated.terms import Grid, Terms, Whole, exact_dot, pack, packed_bytes, shorter, unpack

RULES = "ingle.federated.rules"
Rows = npt.NDArray[np.int64]  # updates [homes, numbers] in parts of a step of the grid: FINE of them are one step
Mean = npt.NDArray[np.float64]  # the rule's answer, in the same parts
# Cut updates don't lie on the grid any more. Finer parts keep the rounding below all that matters.
FINE = 256


class Rule(Protocol):
    LEAST: int  # the fewest homes that it can combine
    ROOTED: bool  # true if it trusts the update of the coordinator's home more than the others

    def combine(self, rows: Rows, poisoned: int, root: int) -> Mean:
        """Return one row of many, of which so many may be poisoned; `root` is the coordinator's home among them, −1 if there is none.

        The order of the rows changes nothing.
        """
        ...


def rule_names() -> list[str]:
    return registry.names(RULES)


def find_rule(name: str) -> Rule:
    """Return the rule of that name. Raises ConfigError with the known ones."""
    rule: Rule = registry.find(RULES, name, "rule")
    return rule


def bearable(homes: int) -> int:
    """Return how many poisoned homes of so many are reckoned with: a fifth, and one at least."""
    return max(1, homes // 5)


def combined(updates: Sequence[Whole], name: str, grid: Grid, root: int = -1) -> Whole:
    """Return the combination of updates by a rule, as the sum of as many updates that are all equal to it.

    Raises FederatedError for too few updates, for numbers that are not on the grid and for updates of different lengths.
    """
    rule = find_rule(name)
    if len(updates) < rule.LEAST:
        raise FederatedError(
            "homes", f"must be at least {rule.LEAST} for the rule {name}", len(updates), "Wait until more homes are there."
        )
    if rule.ROOTED and not 0 <= root < len(updates):
        cure = "Do the round again when it is there, or invite with another rule."
        raise FederatedError("rule", f"{name} needs the update of the coordinator's home, and it isn't there", "", cure)
    for update in updates:
        check_on_grid(update, grid)
        if update.shape != updates[0].shape or update.ndim != 1:
            raise FederatedError("update", f"must have {counted(updates[0].size, 'number')}", update.size, "That home has another model.")
    rows = cut(np.stack([update.astype(np.int64) - grid.half for update in updates]))
    mean = rule.combine(rows, bearable(len(updates)), root)
    return (np.rint(mean * len(updates) / FINE) + len(updates) * grid.half).astype(np.uint32)


def cut(steps: Rows) -> Rows:
    """Return updates in FINE parts, those that are longer than the median length cut to it: who shouts is not heard better."""
    squares = [exact_dot(row, row) for row in steps]
    most = sorted(squares)[(len(squares) - 1) // 2]
    return np.stack([np.rint(row * (FINE * shorter(square, most))).astype(np.int64) for row, square in zip(steps, squares, strict=True)])


def check_on_grid(update: Whole, grid: Grid) -> None:
    """Raise FederatedError for numbers that no update has: larger than the grid's reach."""
    if update.size and (largest := int(update.max())) > 2 * grid.half:
        cure = "That home runs another program; leave it out."
        raise FederatedError("update", f"must hold numbers from 0 to {2 * grid.half}", largest, cure)


def show(member: Member, number: int, base: str, update: Whole) -> tuple[Statement, bytes]:
    """Show this home's update: what it says of it, and the numbers. Only where all agreed to that."""
    assert member.terms.rule, "no update is ever shown in a secure federation"
    body = pack(update, member.terms.grid.bits)
    return state(member.signer, member.seat, "show", _about(member.terms, number, base, body)), body


def read_shown(terms: Terms, number: int, base: str, length: int, shown: Statement, body: bytes) -> Whole:
    """Return the update that a home showed. Raises FederatedError if it didn't sign that one, or if it is none."""
    update = unpack(body, length, terms.grid.bits)
    believe(shown, "show", terms.members, _about(terms, number, base, body))
    check_on_grid(update, terms.grid)
    return update


def believe_shown(terms: Terms, number: int, base: str, shown: Sequence[Statement]) -> tuple[int, ...]:
    """Return the homes that showed an update. Raises FederatedError for another round's, for two of one home, or for too few."""
    for statement in shown:
        believe(statement, "show", terms.members, {"federation": terms.federation, "round": number, "base": base})
    seats = sorted({statement.seat for statement in shown})
    if len(seats) < len(shown):
        raise FederatedError("update", "must come once from each home", "one of them twice", LEAVE)
    if len(seats) < terms.threshold:
        raise FederatedError("homes", f"must be at least {terms.threshold} to go on", len(seats), "Try again when more homes are there.")
    return tuple(seats)


def combine_shown(
    terms: Terms, number: int, base: str, length: int, shown: Mapping[int, Statement], bodies: Mapping[int, bytes]
) -> Whole:  # fmt: skip
    """Return what the invitation's rule makes of the updates. Raises FederatedError for any that isn't what its home signed."""
    seats = believe_shown(terms, number, base, list(shown.values()))
    updates = [read_shown(terms, number, base, length, shown[seat], bodies[seat]) for seat in seats]
    return combined(updates, terms.rule, terms.grid, seats.index(terms.root) if terms.root in seats else -1)


def split_bodies(terms: Terms, length: int, seats: Sequence[int], body: bytes) -> dict[int, bytes]:
    """Return the updates that lie one after the other in a letter, by seat in their order."""
    each = packed_bytes(length, terms.grid.bits)
    if len(body) != each * len(seats):
        raise FederatedError("update", f"must have {each * len(seats)} bytes for these homes", len(body), "It was cut on the way.")
    return {seat: body[at * each : (at + 1) * each] for at, seat in enumerate(sorted(seats))}


def _about(terms: Terms, number: int, base: str, body: bytes) -> dict[str, object]:
    return {"federation": terms.federation, "round": number, "base": base, "numbers": digest_bytes(body)}
