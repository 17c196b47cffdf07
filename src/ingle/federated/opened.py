"""Rounds in the open: each home shows its update, signed; everybody combines them by the invitation's rule, and votes on that.

A home that has the updates of all believes no coordinator: it checks who signed what, combines them itself, and judges what comes out.
"""

from collections.abc import Mapping, Sequence

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.combine import check_on_grid, combined
from ingle.federated.rounding import Whole, pack, packed_bytes, unpack
from ingle.federated.secure_sum import LEAVE, Member
from ingle.federated.statement import Statement, believe, state
from ingle.federated.terms import Terms


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
