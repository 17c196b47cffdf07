"""The tree over the ledger's rows, as it lies in the database: its leaves are the rows' hashes, and its complete subtrees of 64
rows, of 64 × 64, and so on, have a row each in the table `ledger_nodes`. Any other is worked out from at most 64 hashes.

The table is made from the rows alone. Where it is missing or damaged it is made again, and nothing is signed or proven by it that does not
lead to the root in the signed head.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ingle.ledger.head import Head
from ingle.ledger.keys import Verifier
from ingle.ledger.link import signed_by
from ingle.ledger.row import Row, row_hash
from ingle.ledger.table import PAGE_ROWS, ledger_table, rows_from
from ingle.ledger.tree import Node, Peaks, Subtree, grown, joined, leaf_hash, peaks_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

LEVELS = 6  # levels from one kind of stored subtree to the next, the rows being the first kind
_BLOCK = 1 << LEVELS


def add_row(connection: "Connection", peaks: Peaks, row: Row) -> Peaks:
    """Return the tree with one more row. The subtrees that this completes are stored."""
    import sqlalchemy as sa

    after, made = grown(peaks, bytes.fromhex(row.hash))
    stored = [{"level": node.level, "number": node.number, "hash": node.hash.hex()} for node in made if is_stored(node)]
    if stored:
        connection.execute(sa.text(_INSERT), stored)
    return after


def is_stored(node: Node) -> bool:
    """Return whether this complete subtree has a row of its own in the table of subtrees."""
    return node.level > 0 and node.level % LEVELS == 0


def standing(connection: "Connection", head: Head) -> Peaks | None:
    """Return the tree of the whole ledger, rows behind the head included; those must have been checked.

    If the stored subtrees don't lead to the head's root, or the head has none, they are made again. None = the rows up to the head are not
    those that were signed, so there is no tree to go on with.
    """
    peaks = _stored_peaks(connection, head.seq)
    if peaks is None or (head.seq > 0 and peaks.root.hex() != head.root):
        peaks = remade(connection, head)
    if peaks is None:
        return None
    while rows := rows_from(connection, peaks.count or None):
        for row in rows:
            peaks = add_row(connection, peaks, row)
    return peaks


def remade(connection: "Connection", head: Head, unsigned: Sequence[Verifier] = ()) -> Peaks | None:
    """Make all stored subtrees up to the head again, from the rows; None where the rows are not those that the head was signed for.

    `unsigned`: the keys of the ledger, where nobody signed the head, so that each row's own signature must be checked.
    """
    import sqlalchemy as sa

    connection.execute(sa.text("DELETE FROM ledger_nodes"))
    peaks, after = Peaks(), None
    while peaks.count < head.seq and (rows := rows_from(connection, peaks.count or None, min(PAGE_ROWS, head.seq - peaks.count))):
        for row in rows:
            if not _follows(row, peaks.count + 1, after) or (unsigned and not any(signed_by(row, key) for key in unsigned)):
                return None
            peaks, after = add_row(connection, peaks, row), row.hash
    return peaks if peaks.count == head.seq and after in (None, head.hash) else None


def subtrees(connection: "Connection", count: int) -> Subtree:
    """Return a function that returns the hash of a complete subtree of the first `count` rows.

    It raises LookupError for one whose rows or stored subtrees are missing, ValueError for damaged ones.
    """

    @cache
    def block(level: int, number: int) -> Sequence[bytes]:
        """Return the hashes of up to 64 neighbours of a stored kind."""
        first = number << LEVELS
        most = min(_BLOCK, (count >> level) - first)
        hashes = _hashes(connection, level, first, most)
        if len(hashes) != most:
            raise LookupError(f"subtrees of level {level}")
        return hashes

    @cache
    def subtree(level: int, number: int) -> bytes:
        if level % LEVELS == 0:
            return block(level, number >> LEVELS)[number % _BLOCK]
        return joined(subtree(level - 1, 2 * number), subtree(level - 1, 2 * number + 1))

    return subtree


def stored_nodes(connection: "Connection") -> dict[tuple[int, int], str]:
    """Return every stored subtree: its hash by level and number."""
    import sqlalchemy as sa

    return {(level, number): hash_ for level, number, hash_ in connection.execute(sa.text("SELECT level, number, hash FROM ledger_nodes"))}


_INSERT = """
    INSERT INTO ledger_nodes (level, number, hash) VALUES (:level, :number, :hash)
    ON CONFLICT (level, number) DO UPDATE SET hash = excluded.hash"""


def _stored_peaks(connection: "Connection", count: int) -> Peaks | None:
    try:
        return peaks_of(count, subtrees(connection, count))
    except (LookupError, ValueError, TypeError):
        return None


def _hashes(connection: "Connection", level: int, first: int, count: int) -> list[bytes]:
    import sqlalchemy as sa

    if level == 0:
        table = ledger_table()
        query: Any = sa.select(table.c.hash).where(table.c.seq > first, table.c.seq <= first + count).order_by(table.c.seq)
        return [leaf_hash(bytes.fromhex(found)) for (found,) in connection.execute(query)]
    query = sa.text("SELECT hash FROM ledger_nodes WHERE level = :level AND number >= :first AND number < :end ORDER BY number")
    found = connection.execute(query, {"level": level, "first": first, "end": first + count})
    return [bytes.fromhex(hash_) for (hash_,) in found]


def _follows(row: Row, seq: int, prev: str | None) -> bool:
    """Return whether a row is the one that its hash was made of, and follows the row with hash `prev`."""
    try:
        expected = row_hash(row.seq, row.at, row.kind, row.subject, row.facts, row.prev)
    except (UnicodeEncodeError, TypeError):
        return False
    return (row.seq, row.hash) == (seq, expected) and prev in (None, row.prev)
