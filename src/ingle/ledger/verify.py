"""Verify a chain: every row's predecessor, hash and signature, the succession of keys, and the signed heads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import HomeError, LedgerError
from ingle.ledger.head import HEAD, Head, head_is_genuine, read_head
from ingle.ledger.keys import PUBLIC, Verifier, load_verifiers, read_signers
from ingle.ledger.link import ROTATED, Link, first_link, follow, named_key
from ingle.ledger.nodes import is_stored, stored_nodes
from ingle.ledger.row import Row
from ingle.ledger.table import PAGE_ROWS, newest_rows, rows_from
from ingle.ledger.tree import Peaks, grown

if TYPE_CHECKING:
    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True)
class Problem:
    """The first problem of a chain."""

    seq: int  # number of the row; 0 if it concerns the ledger as a whole
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification."""

    count: int  # sound rows, from the first on; a problem comes after them
    head: Head | None  # the head of this home
    problem: Problem | None  # none = every row is as it was signed, and none is missing
    keys: tuple[str, ...] = ()  # fingerprints of the keys that signed the sound rows, in their order
    # Numbers of sound rows that say an earlier time than the row before them. The order is proven; a clock was wrong.
    backwards: tuple[int, ...] = ()
    # Stored subtrees that are not those of the rows. Nothing is proven by them: they are made again when that shows.
    stale: int = 0


def verify_chain(engine: "Engine", folder: Path, exported: Head | None = None) -> Verification:
    """Verify the whole chain. `exported` is a head that was kept elsewhere: it must be part of this chain.

    Finds rows that were edited, deleted, inserted, reordered or cut off, a swapped key, and a new key that the old one did not hand over
    to. Needs the public keys only. Raises LedgerError if there is none although there are rows.
    """
    known = load_verifiers(folder) or tuple(signer.verifier for signer in read_signers(folder))
    if not known:
        return _without_key(engine, folder, exported)
    # Before the rows: a head that is read after them may be ahead of them, honestly.
    head = read_head(folder, known)
    keys = {key.fingerprint: key for key in (*_named_keys(engine), *known)}
    if exported is not None and not (exported.fingerprint in keys and head_is_genuine(exported, keys[exported.fingerprint])):
        what = f"the exported head was signed by key {exported.fingerprint[:12]}, this ledger has {known[-1].fingerprint[:12]}"
        if exported.fingerprint in keys:
            what = "the exported head was edited: its signature doesn't fit"
        return Verification(0, head, Problem(0, what))
    heads = [(one, name) for one, name in ((exported, "the exported head"), (head, "the signed head")) if one is not None]
    backwards: list[int] = []
    nodes = _stored(engine)
    link, signed, problem = _walk(engine, known, keys, heads, backwards, nodes)
    # Read again: a key that was made meanwhile was named in ledger.pub before it signed its first row.
    ours = {key.fingerprint for key in (*known, *load_verifiers(folder))}
    if problem is None and link.seq and link.verifier.fingerprint not in ours:
        newer = f"it goes on with key {link.verifier.fingerprint[:12]}, which {PUBLIC} doesn't name"
        problem = Problem(0, f"{newer}: the folder of keys is older than the database, or was swapped")
    if problem is None and head is None:
        problem = Problem(0, "the signed head of this home is missing or damaged, so rows at the end may be missing too")
    return Verification(link.seq, head, problem, signed, tuple(backwards), len(nodes) if problem is None else 0)


def _walk(
    engine: "Engine", known: Sequence[Verifier], keys: Mapping[str, Verifier], heads: Sequence[tuple[Head, str]], backwards: list[int],
    nodes: dict[tuple[int, int], str],
) -> tuple[Link, tuple[str, ...], Problem | None]:  # fmt: skip
    """Return (the end of the sound rows, the keys that signed them, the first problem).

    `backwards` gets the numbers of rows whose time is before that of the row before. `nodes` loses the stored subtrees that are sound.
    """
    at, peaks = "", Peaks()
    link = first_link(known[0])
    signed: tuple[str, ...] = ()
    for item in _rows(engine):
        if isinstance(item, str):
            return link, signed, Problem(link.seq + 1, item)
        if not signed:
            link = first_link(keys.get(item.prev, known[0]))
        after = follow(link, item, known)
        if isinstance(after, str):
            return link, signed, Problem(min(item.seq, link.seq + 1), after)
        peaks, made = grown(peaks, bytes.fromhex(item.hash))
        if what := _head_problem(after, peaks, heads):
            return link, signed, Problem(after.seq, what)
        for node in filter(is_stored, made):
            if nodes.get((node.level, node.number)) == node.hash.hex():
                del nodes[node.level, node.number]
        if item.at < at:  # all are written in one form, so texts compare as times do
            backwards.append(item.seq)
        link, at = after, item.at
        if link.verifier.fingerprint not in signed[-1:]:
            signed = (*signed, link.verifier.fingerprint)
    if lost := [(head.seq, name) for head, name in heads if head.seq > link.seq]:
        seq, name = max(lost)
        return link, signed, Problem(link.seq + 1, f"the last {seq - link.seq} rows were cut off: {name} says that there were {seq}")
    if link.successor is not None:
        return link, signed, Problem(link.seq + 1, f"it was cut off: key {link.successor.fingerprint[:12]} was to take over")
    return link, signed, None


def _head_problem(link: Link, peaks: Peaks, heads: Sequence[tuple[Head, str]]) -> str | None:
    """Return why the chain up to here isn't the one that was signed."""
    for head, name in heads:
        if head.seq == link.seq and head.hash == link.hash and head.root not in ("", peaks.root.hex()):
            return f"{name} has another root than the tree over the rows"
        if head.seq == link.seq and head.hash != link.hash:
            return f"it is not the row that {name} was signed for: the chain was cut and went on"
        if head.seq == link.seq and head.fingerprint != link.verifier.fingerprint:
            return f"{name} was signed by key {head.fingerprint[:12]}, whose turn it wasn't"
    return None


def _stored(engine: "Engine") -> dict[tuple[int, int], str]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.connect() as connection:
            return stored_nodes(connection)
    except (SQLAlchemyError, HomeError):
        return {}


def _named_keys(engine: "Engine") -> list[Verifier]:
    """Return the old keys that the rotations name, for a ledger.pub that was made anew; whether they signed, the rows must tell."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.connect() as connection:
            rows = newest_rows(connection, ROTATED, None, None, PAGE_ROWS)
    except (SQLAlchemyError, HomeError):
        return []  # the walk says where it can't be read
    return [key for key in map(named_key, rows) if key is not None]


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
