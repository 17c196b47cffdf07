"""The coordinator's side of a secure sum: from masked updates and shares to the sum, whoever dropped out on the way."""

from collections.abc import Iterable, Mapping
from itertools import combinations, islice

import numpy as np

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError
from ingle.federated.rounding import Whole, unpack
from ingle.federated.sealing import mask, public_of
from ingle.federated.secure_sum import pair_mask
from ingle.federated.shamir import SHARE_BYTES, combine
from ingle.federated.statement import Statement, text_of
from ingle.federated.terms import Terms

MOST_TRIES = 500  # sets of shares that are tried before a secret is given up: some homes may have told wrong ones


def open_sum(
    terms: Terms, number: int, length: int, keys: Mapping[int, Statement], updates: Mapping[int, bytes], told: Mapping[int, Statement]
) -> Whole:
    """Return the sum of the updates on the grid, `length` numbers each, exactly.

    By seat: `keys` is what the homes of the round said as theirs, `updates` the masked numbers of all that were agreed on, `told` their
    shares. All were verified. Raises FederatedError if there are too few shares, or wrong ones.
    """
    if len(told) < terms.threshold:
        cure = "Nothing can be known of any update. Do the round again when more homes are there."
        raise FederatedError("homes", f"must be at least {terms.threshold} to open a sum", len(told), cure)
    width = terms.grid.width
    total = np.zeros(length, np.uint32)
    for payload in updates.values():
        total += unpack(payload, length, width)
    for seat, statement in keys.items():
        shares = _shares(told, seat)
        if seat in updates:
            total -= mask(_secret(terms, seat, "seed", shares, text_of(statement, "seed")), length, width)
        else:
            private = _secret(terms, seat, "key", shares, text_of(statement, "key"))
            for other in updates:  # what the one who dropped out would have added, its partners have subtracted
                total += pair_mask(terms, number, length, private, seat, other, text_of(keys[other], "key"))
    return total & terms.grid.modulus_bits


def seeds_of(terms: Terms, keys: Mapping[int, Statement], homes: Iterable[int], told: Mapping[int, Statement]) -> dict[int, str]:
    """Return the seeds (hex) of the homes in a sum that was opened, from their shares. Raises FederatedError as `open_sum` does."""
    seeds: dict[int, str] = {}
    for seat in homes:
        seeds[seat] = _secret(terms, seat, "seed", _shares(told, seat), text_of(keys[seat], "seed")).hex()
    return seeds


def plain_sum(updates: Iterable[Whole]) -> Whole:
    """Return the sum of updates that lie open: what a secure sum must be equal to."""
    total = np.stack(list(updates)).astype(np.uint64).sum(axis=0)
    return np.asarray(total, np.uint32)


def _secret(terms: Terms, seat: int, what: str, shares: Mapping[int, bytes], expected: str) -> bytes:
    """Put a home's secret together from its shares, and compare it with what that home committed itself to."""
    for tried in islice(combinations(sorted(shares), terms.threshold), MOST_TRIES):
        secret = combine({x: shares[x] for x in tried})
        if secret is not None and (digest_bytes(secret) if what == "seed" else public_of(secret)) == expected:
            return secret
    cure = "Homes told wrong shares, or that home dealt them. Do the round again without it."
    raise FederatedError(
        "shares", f"The shares of the {what} of the home in seat {seat} don't fit together", f"{len(shares)} of them", cure
    )


def _of(said: Statement) -> Mapping[str, str]:
    told = said.facts.get("of")
    return told if isinstance(told, dict) else {}


def _shares(told: Mapping[int, Statement], seat: int) -> dict[int, bytes]:
    """Return what was told of a home's secret, by the number of the share."""
    return {teller + 1: share for teller, said in told.items() if (share := _share(said, seat)) is not None}


def _share(said: Statement, seat: int) -> bytes | None:
    """Return the share of a home's secret as another home told it; None if it is none."""
    try:
        share = bytes.fromhex(_of(said).get(str(seat), ""))
    except (TypeError, ValueError):
        return None
    return share if len(share) == SHARE_BYTES else None
