"""Work out a sum again from what its homes signed: whoever has the masked updates and the shares needs nobody's word for it.

The masked updates show no more than the sum does, to whomever; so all homes may have them.
"""

from collections.abc import Mapping, Sequence

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.rounding import Whole
from ingle.federated.secure_sum import LEAVE, roster_digest
from ingle.federated.statement import Statement, believe
from ingle.federated.summing import open_sum
from ingle.federated.terms import Terms

SAID = ("keys", "update", "shares")  # the statements that a sum of all its homes follows from


def witnessed_sum(
    terms: Terms, number: int, base: str, length: int, said: Mapping[str, Sequence[Statement]], bodies: Mapping[int, bytes]
) -> Whole:  # fmt: skip
    """Return the sum of all homes of these terms. Raises FederatedError if any of it is not what each of them signed."""
    everybody = list(range(len(terms.members)))
    where = {"federation": terms.federation, "round": number}
    by_kind = {kind: {statement.seat: statement for statement in said.get(kind, ())} for kind in SAID}
    for kind, statements in by_kind.items():
        if sorted(statements) != everybody:
            raise FederatedError(kind, "must be said by every home of the group", f"{len(statements)} of {len(everybody)}", LEAVE)
    roster = roster_digest(by_kind["keys"].values())
    for seat in everybody:
        believe(by_kind["keys"][seat], "keys", terms.members, {**where, "base": base})
        believe(by_kind["update"][seat], "update", terms.members, {**where, "roster": roster, "numbers": digest_bytes(bodies[seat])})
        believe(by_kind["shares"][seat], "shares", terms.members, {**where, "survivors": everybody})
    return open_sum(terms, number, length, by_kind["keys"], bodies, by_kind["shares"])
