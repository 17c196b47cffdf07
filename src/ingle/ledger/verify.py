"""Verify a chain: every row's predecessor, hash and signature, and the signed heads."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import HomeError, LedgerError
from ingle.ledger.head import HEAD, Head, head_is_genuine, read_head
from ingle.ledger.keys import Verifier, load_verifier, read_signer
from ingle.ledger.row import Row, row_hash
from ingle.ledger.table import PAGE_ROWS, rows_from

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True)
class Problem:
    """The first problem of a chain."""

    seq: int
    """Number of the row; 0 if it concerns the ledger as a whole."""
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification."""

    count: int
    """Sound rows, from the first on; a problem comes after them."""
    head: Head | None
    """The head of this home."""
    problem: Problem | None
    """None = every row is as it was signed, and none is missing."""
    backwards: tuple[int, ...] = ()
    """Numbers of sound rows that say an earlier time than the row before them. The order is proven; a clock was wrong."""


def verify_chain(engine: "Engine", folder: Path, exported: Head | None = None) -> Verification:
    """Verify the whole chain. `exported` is a head that was kept elsewhere: it must be part of this chain.

    Finds rows that were edited, deleted, inserted, reordered or cut off, and a swapped key. Needs the public key only. Raises LedgerError
    if there is no public key although there are rows.
    """
    verifier = load_verifier(folder)
    if verifier is None and (signer := read_signer(folder)):
        verifier = signer.verifier
    if verifier is None:
        return _without_key(engine, folder, exported)
    # Before the rows: a head that is read after them may be ahead of them, honestly.
    head = read_head(folder, verifier)
    if exported is not None and not head_is_genuine(exported, verifier):
        what = f"the exported head was signed by key {exported.fingerprint[:12]}, this ledger has {verifier.fingerprint[:12]}"
        if exported.fingerprint == verifier.fingerprint:
            what = "the exported head was edited: its signature doesn't fit"
        return Verification(0, head, Problem(0, what))
    heads = ((exported, "the exported head"), (head, "the signed head"))
    backwards: list[int] = []
    count, problem = _walk(engine, verifier, [(known, name) for known, name in heads if known is not None], backwards)
    if problem is None and head is None:
        problem = Problem(0, "the signed head of this home is missing or damaged, so rows at the end may be missing too")
    return Verification(count, head, problem, tuple(backwards))


def row_problem(row: Row, seq: int, prev: str, verifier: Verifier) -> str | None:
    """Return the problem of `row`, which should be number `seq` and follow a row with hash `prev`; None = it is sound."""
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
    if row.hash != expected:
        return "its contents are not those that were hashed"
    if not verifier.accepts(row.signature, bytes.fromhex(row.hash)):
        return "its signature was not made with this ledger's key"
    return None


def _walk(
    engine: "Engine", verifier: Verifier, heads: list[tuple[Head, str]], backwards: list[int]
) -> tuple[int, Problem | None]:  # fmt: skip
    """Return (number of sound rows, first problem); `backwards` gets the numbers of rows whose time is before that of the row before."""
    furthest = max(heads, key=lambda pair: pair[0].seq, default=None)
    prev, count, at = verifier.fingerprint, 0, ""
    for item in _rows(engine):
        seq = count + 1
        what = item if isinstance(item, str) else row_problem(item, seq, prev, verifier)
        if what is not None:
            return count, Problem(seq if isinstance(item, str) else min(item.seq, seq), what)
        assert isinstance(item, Row)
        for head, name in heads:
            if head.seq == seq and head.hash != item.hash:
                return count, Problem(seq, f"it is not the row that {name} was signed for: the chain was cut and went on")
        if item.at < at:  # all are written in one form, so texts compare as times do
            backwards.append(seq)
        prev, count, at = item.hash, seq, item.at
    if furthest is not None and furthest[0].seq > count:
        lost = furthest[0].seq - count
        what = f"the last {lost} rows were cut off: {furthest[1]} says that there were {furthest[0].seq}"
        return count, Problem(count + 1, what)
    return count, None


def _rows(engine: "Engine") -> Iterator[Row | str]:
    """Yield every row in order; end with a reason in words if one can't be read."""
    from sqlalchemy.exc import SQLAlchemyError

    after: int | None = None
    limit = PAGE_ROWS
    while True:
        try:
            with engine.connect() as connection:
                rows = rows_from(connection, after, limit)
        except (SQLAlchemyError, HomeError) as error:
            if limit == 1:
                yield f"it can't be read: {str(error).splitlines()[0]}"
                return
            limit = 1  # finds out which row of the page it is
            continue
        if not rows:
            return
        yield from rows
        after = rows[-1].seq


def _without_key(engine: "Engine", folder: Path, exported: Head | None) -> Verification:
    with engine.connect() as connection:
        rows = rows_from(connection, None, 1)
    if rows or exported is not None or (folder / HEAD).exists():
        raise LedgerError(
            str(folder), "must hold the public key that the chain was signed with", "none", "Restore ledger.pub from a backup."
        )
    return Verification(0, None, None)
