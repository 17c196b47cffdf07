"""How a row fits onto the chain before it, and which key must have signed it.

A rotation of the key is two rows, written together. The old key's last row (`ledger.rotate`) names the new key, the new key's first row
(`ledger.rotated`) names the old one: each vouches for the other, and the rows alone say whose turn it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from ingle.core.errors import LedgerError
from ingle.core.report import Event
from ingle.ledger.keys import Verifier, read_verifier
from ingle.ledger.row import Row, row_hash

LOSS = "ledger.loss"  # kind of the fact that rows were lost and the owner accepted it
# Kinds of the two facts of a rotation; each holds the other key, as `key` (fingerprint) and `public` (64 hex digits).
ROTATE, ROTATED = "ledger.rotate", "ledger.rotated"


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a sound chain: what the next row must fit onto."""

    seq: int  # 0 before the first row
    hash: str
    verifier: Verifier  # the key that signed row `seq`
    successor: Verifier | None = None  # the key that row `seq` hands over to


def first_link(verifier: Verifier) -> Link:
    """Return the end of the empty chain of a key."""
    return Link(0, verifier.fingerprint, verifier)


def rotation_event(kind: str, other: Verifier) -> Event:
    """Return one of the two facts of a rotation; `other` is the key that doesn't sign it."""
    return Event(kind, "ledger", {"key": other.fingerprint, "public": other.public})


def named_key(row: Row) -> Verifier | None:
    """Return the key that a row of a rotation names; None if it names none."""
    try:
        facts = row.values
        verifier = read_verifier(str(facts["public"]))
    except (LedgerError, ValueError, KeyError, TypeError):
        return None
    return verifier if verifier.fingerprint == facts.get("key") else None


def follow(link: Link, row: Row, known: Sequence[Verifier]) -> Link | str:
    """Return the chain's end after `row`, or the row's problem in words. `known`: this home's public keys, the oldest first."""
    if problem := _content_problem(row, link.seq + 1, link.hash):
        return problem
    verifier = next((key for key in _may_sign(link, row, known) if signed_by(row, key)), None)
    if verifier is None:
        return f"its signature was not made with key {(link.successor or link.verifier).fingerprint[:12]}, which signs here"
    named = named_key(row) if row.kind in (ROTATE, ROTATED) else None
    if row.kind == ROTATED and not (link.successor and named and named.fingerprint == link.verifier.fingerprint):
        return "it takes over from a key that did not hand over to it"
    if row.kind == ROTATE and named is None:
        return "it hands over to no key"
    if link.successor and row.kind not in (ROTATED, LOSS):
        return f"the key {link.successor.fingerprint[:12]} was handed over to and did not take over"
    return Link(row.seq, row.hash, verifier, named if row.kind == ROTATE else None)


def signed_by(row: Row, verifier: Verifier) -> bool:
    """Return whether this key signed this row's hash."""
    try:
        return verifier.accepts(row.signature, bytes.fromhex(row.hash))
    except (ValueError, TypeError):
        return False


def _may_sign(link: Link, row: Row, known: Sequence[Verifier]) -> Iterator[Verifier]:
    expected = link.successor or link.verifier
    yield expected
    if row.kind == LOSS:
        # A database from before a rotation was restored. The old key is gone, so only a later one can go on.
        names = [key.fingerprint for key in known]
        yield from known[names.index(expected.fingerprint) + 1 :] if expected.fingerprint in names else known


def _content_problem(row: Row, seq: int, prev: str) -> str | None:
    if row.seq != seq:
        return f"row {seq} is missing" if row.seq > seq else f"row {row.seq} was inserted"
    # A database may hold anything in any column; bytes or numbers instead of text would break the hash below.
    if not all(isinstance(value, str) for value in astuple(row)[1:]):
        return "it holds something other than text"
    if row.prev != prev:
        return "it doesn't follow the row before it" if seq > 1 else "the chain was begun with another key"
    try:
        expected = row_hash(row.seq, row.at, row.kind, row.subject, row.facts, row.prev)
    except UnicodeEncodeError:
        return "it holds text that no ledger writes"
    return None if row.hash == expected else "its contents are not those that were hashed"
