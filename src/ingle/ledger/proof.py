"""Proofs that a fact is in this ledger, and that a later head only added to an earlier one, without handing out any other fact.

Both are paths through the tree over the rows (ledger/tree.py) to the root that the signed head carries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.core.errors import LedgerError, NotKept
from ingle.ledger.head import Head, head_is_genuine, head_table, read_head
from ingle.ledger.keys import Verifier, load_verifiers
from ingle.ledger.link import signed_by
from ingle.ledger.nodes import remade, subtrees
from ingle.ledger.row import Row, row_hash
from ingle.ledger.table import appending, rows_from
from ingle.ledger.tree import consistency_path, inclusion_path, is_consistent, root_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


@dataclass(frozen=True, slots=True)
class Proven:
    """A fact, and the way from it to the root."""

    row: Row
    path: tuple[str, ...]  # hashes in hex, the lowest first


@dataclass(frozen=True, slots=True)
class Extract:
    """Some facts of a ledger with their proofs."""

    proven: tuple[Proven, ...]
    head: Head
    key: str  # the public key that signed the head, 64 hex digits


def extract(engine: "Engine", keys: Path, seqs: Iterable[int]) -> Extract:
    """Return these facts with their proofs under the home's newest head.

    Raises NotKept for a number that the ledger doesn't have, LedgerError if its head has no root yet, or a fact is not the one that was
    signed.
    """
    verifiers, head = _signed_head(keys)
    with engine.connect() as connection:
        rows = [_row(connection, seq, head) for seq in seqs]
        found = [_proven(connection, row, head, verifiers) for row in rows]
    if None in found:  # a stored subtree is damaged, or a row
        _remake(engine, head)
        with engine.connect() as connection:
            found = [_proven(connection, row, head, verifiers) for row in rows]
    for row, one in zip(rows, found, strict=True):
        if one is None:
            raise _changed(f"fact {row.seq}")
    [key] = [one.public for one in verifiers if one.fingerprint == head.fingerprint]
    return Extract(tuple(one for one in found if one is not None), head, key)


def consistency(engine: "Engine", keys: Path, old: int) -> tuple[Head, tuple[str, ...]]:
    """Return the home's newest head, and the path which shows that its rows begin with the first `old` ones.

    Raises NotKept if there were never so many, LedgerError as `extract` does.
    """
    _, head = _signed_head(keys)
    if not 0 < old <= head.seq:
        raise NotKept("since", f"The ledger has facts 1 to {head.seq}", old)
    try:
        with engine.connect() as connection:
            path = consistency_path(old, head.seq, subtrees(connection, head.seq))
    except (LookupError, ValueError):
        _remake(engine, head)
        with engine.connect() as connection:
            path = consistency_path(old, head.seq, subtrees(connection, head.seq))
    return head, tuple(step.hex() for step in path)


def inclusion_problem(row: Row, path: Sequence[str], head: Head, verifiers: Sequence[Verifier]) -> str:
    """Return why a proof doesn't show that this row is the fact of that number in the ledger of these keys; "" = it does."""
    if not any(head_is_genuine(head, verifier) for verifier in verifiers):
        return "the head was not signed by a key of this ledger"
    if not head.root:
        return "the head has no root"
    try:
        fits = row.hash == row_hash(row.seq, row.at, row.kind, row.subject, row.facts, row.prev)
        root = root_of(bytes.fromhex(row.hash), row.seq - 1, head.seq, [bytes.fromhex(step) for step in path])
    except (ValueError, TypeError, UnicodeEncodeError):
        return "the fact or its path can't be read"
    if not fits or not any(signed_by(row, verifier) for verifier in verifiers):
        return "the fact is not the one that was signed"
    return "" if root is not None and root.hex() == head.root else "its path doesn't lead to the root of the head"


def consistency_problem(old: Head, head: Head, path: Sequence[str], verifiers: Sequence[Verifier]) -> str:
    """Return why a path doesn't show that the ledger of these keys only grew from `old` to `head`; "" = it does."""
    if not all(any(head_is_genuine(one, verifier) for verifier in verifiers) for one in (old, head)):
        return "a head was not signed by a key of this ledger"
    try:
        steps = [bytes.fromhex(step) for step in path]
        grew = is_consistent(old.seq, bytes.fromhex(old.root), head.seq, bytes.fromhex(head.root), steps)
    except ValueError:
        return "the path can't be read"
    return "" if grew else "the later head does not continue the earlier one"


def extract_table(found: Extract) -> Mapping[str, Any]:
    """Return an extract as plain values for JSON."""
    return {"facts": [proven_table(one) for one in found.proven], "head": head_table(found.head)}


def proven_table(one: Proven) -> dict[str, Any]:
    """Return a fact and its path as plain values. Its hash is left out: whoever verifies must compute it. What is signed is the root."""
    row = one.row
    fact = {"seq": row.seq, "at": row.at, "kind": row.kind, "subject": row.subject, "facts": row.facts, "prev": row.prev}
    return {**fact, "path": list(one.path)}


def _signed_head(keys: Path) -> tuple[tuple[Verifier, ...], Head]:
    verifiers = load_verifiers(keys)
    head = read_head(keys, verifiers) if verifiers else None
    if head is None:
        raise LedgerError(
            "ledger", "has no signed head, so nothing can be proven", "", "It gets one with its first fact, or run `ingle verify`."
        )
    if not head.root:
        cure = "The next fact gives it one, unless `ingle verify` says that older facts were changed."
        raise LedgerError("ledger", "has a head of an older Ingle, without a root to prove facts by", "", cure)
    return verifiers, head


def _row(connection: "Connection", seq: int, head: Head) -> Row:
    rows = rows_from(connection, seq - 1, 1) if 0 < seq <= head.seq else []
    if [row.seq for row in rows] != [seq]:
        raise NotKept("event", f"The ledger holds no fact {seq}", "", f"It has facts 1 to {head.seq}: `ingle log` lists them.")
    return rows[0]


def _proven(connection: "Connection", row: Row, head: Head, verifiers: Sequence[Verifier]) -> Proven | None:
    try:
        path = tuple(step.hex() for step in inclusion_path(row.seq - 1, head.seq, subtrees(connection, head.seq)))
    except (LookupError, ValueError, TypeError):
        return None
    return None if inclusion_problem(row, path, head, verifiers) else Proven(row, path)


def _remake(engine: "Engine", head: Head) -> None:
    with appending(engine) as connection:
        if remade(connection, head) is None:
            raise _changed("ledger")


def _changed(what: str) -> LedgerError:
    cure = "`ingle verify` says which. Restore the database and the folder of keys from the same backup."
    return LedgerError(what, "can't be proven: rows are not those that were signed", "", cure)
