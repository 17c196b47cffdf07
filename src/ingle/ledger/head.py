"""The signed head: the last row's number and hash, kept outside the database, so that a truncated chain is noticed.

The file `ledger.head` has two slots of 512 bytes, each one line of JSON. A new head overwrites the older slot in place, without an fsync.
After a power cut one slot may be torn or both may be older, but there is always a head, and an older head is valid (the chain has only
grown since). A rename with its fsyncs would triple the cost of an event.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ingle.core.digest import canonical_json
from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, write_atomic
from ingle.core.process import file_lock
from ingle.ledger.keys import Signer, Verifier

HEAD = "ledger.head"
_SLOT_BYTES = 512


@dataclass(frozen=True, slots=True)
class Head:
    """The length of a chain, signed."""

    seq: int  # 0 before the first row
    hash: str  # hash of row `seq`; the key's fingerprint when `seq` is 0
    fingerprint: str  # SHA-256 of the public key
    signature: str  # ed25519 over ["ingle.head", seq, hash, fingerprint, root]: a row's own signature can't stand in for it
    # Root of the tree over rows 1 to `seq` (see ledger/tree.py). "" in heads of an older Ingle, which signed the list without it, and where
    # older rows were found changed.
    root: str = ""


def sign_head(signer: Signer, seq: int, row_hash: str, root: str = "") -> Head:
    """Return the signed head for row `seq`."""
    head = Head(seq, row_hash, signer.verifier.fingerprint, "", root)
    return replace(head, signature=signer.sign(_message(head)))


def head_is_genuine(head: Head, verifier: Verifier) -> bool:
    """Return whether this key signed this head."""
    return head.fingerprint == verifier.fingerprint and verifier.accepts(head.signature, _message(head))


def read_head(folder: Path, verifiers: Sequence[Verifier]) -> Head | None:
    """Return this home's newest head with a valid signature of one of its keys; None if there is none."""
    path = folder / HEAD
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    heads = [_parse(data[start : start + _SLOT_BYTES]) for start in (0, _SLOT_BYTES)]
    genuine = [head for head in heads if head is not None and _is_ours(head, verifiers)]
    return max(genuine, key=lambda head: head.seq, default=None)


def claims_rows(folder: Path) -> bool:
    """Return whether a head file says, genuine or not, that a chain was begun; for a home without a key."""
    path = folder / HEAD
    if not path.exists():
        return False
    with os_errors(path):
        data = path.read_bytes()
    heads = [_parse(data[start : start + _SLOT_BYTES]) for start in (0, _SLOT_BYTES)]
    return any(head is None or head.seq > 0 for head in heads)


def start_head(folder: Path, head: Head) -> None:
    """Write both slots anew, whatever was there."""
    write_atomic(folder / HEAD, _slot(head) * 2, mode=0o600)


def move_head(folder: Path, head: Head, verifiers: Sequence[Verifier]) -> None:
    """Move the head forward. Does nothing if another process has moved it further already."""
    path = folder / HEAD
    with file_lock(folder / "ledger.lock"), os_errors(path), path.open("r+b", buffering=0) as file:
        slots = [_parse(file.read(_SLOT_BYTES)) for _ in range(2)]
        ages = [slot.seq if slot is not None and _is_ours(slot, verifiers) else -1 for slot in slots]
        if max(ages) >= head.seq:
            return
        file.seek(_SLOT_BYTES * ages.index(min(ages)), os.SEEK_SET)
        file.write(_slot(head))


def export_head(head: Head, path: Path) -> None:
    """Write a head to a file, to be kept elsewhere and compared later."""
    write_atomic(path, head_bytes(head))


def head_bytes(head: Head) -> bytes:
    """Return the content of the file of an exported head."""
    return canonical_json(head_table(head)) + b"\n"


def head_table(head: Head) -> dict[str, int | str]:
    """Return a head as plain values, without a root that it doesn't have."""
    table: dict[str, int | str] = asdict(head)
    return table if head.root else {name: value for name, value in table.items() if name != "root"}


def load_head(path: Path) -> Head:
    """Read an exported head.

    Raises LedgerError if the file is not one.
    """
    with os_errors(path):
        data = path.read_bytes()
    head = _parse(data)
    if head is None:
        raise LedgerError(str(path), "must be an exported head of a ledger", f"{len(data)} bytes of something else")
    return head


def _is_ours(head: Head, verifiers: Sequence[Verifier]) -> bool:
    return any(head_is_genuine(head, verifier) for verifier in verifiers)


def _message(head: Head) -> bytes:
    signed = ["ingle.head", head.seq, head.hash, head.fingerprint]
    return canonical_json([*signed, head.root] if head.root else signed)


def _slot(head: Head) -> bytes:
    line = canonical_json(head_table(head))
    assert len(line) < _SLOT_BYTES, f"a head has {len(line)} bytes"
    return line.ljust(_SLOT_BYTES - 1) + b"\n"


def _parse(data: bytes) -> Head | None:
    try:
        table = json.loads(data)
        head = Head(table["seq"], table["hash"], table["fingerprint"], table["signature"], table.get("root", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    texts = (head.hash, head.fingerprint, head.signature, head.root)
    return head if type(head.seq) is int and all(type(text) is str and text.isascii() for text in texts) else None
