"""One row of the ledger: the text of an event, and the data that its hash covers.

hash = SHA-256 of the canonical JSON of [seq, at, kind, subject, facts, prev], where `facts` is itself canonical JSON as text,
so that not even a space in it can change unseen. `prev` is the hash of the row before; the first row's is the fingerprint of
the key, so that a chain belongs to one key from its beginning.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ingle.core.digest import canonical_json, digest_json
from ingle.core.errors import LedgerError
from ingle.core.report import Event, Fact

MAX_TEXT = 256  # most characters of one value: room for digests and names, not for a conversation
MAX_FACTS = 64
_KIND = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Row:
    """One stored fact. Equal to the columns of the table."""

    seq: int  # counts from 1
    at: str  # UTC, ISO 8601 with microseconds
    kind: str
    subject: str
    facts: str  # canonical JSON of a flat object
    prev: str  # hash of the row before
    hash: str
    signature: str  # ed25519 over the 32 bytes of `hash`, in hex

    @property
    def values(self) -> dict[str, Fact]:
        """The facts as a table. Raises LedgerError for a row that no ledger wrote."""
        try:
            return dict(json.loads(self.facts))
        except (ValueError, TypeError) as error:
            cure = "`ingle verify` says more. Restore the database and the keys from one backup."
            raise LedgerError(f"fact {self.seq}", "can't be read", type(error).__name__, cure) from error


def row_hash(seq: int, at: str, kind: str, subject: str, facts: str, prev: str) -> str:
    """Return the SHA-256, in hex, of everything in a row except its hash and signature."""
    return digest_json([seq, at, kind, subject, facts, prev])


def facts_text(event: Event) -> str:
    """Return the facts of an event as canonical JSON.

    Raises LedgerError for anything but short, flat, printable values: words of a conversation must not get in here.
    """
    if not _KIND.fullmatch(event.kind) or len(event.kind) > MAX_TEXT:
        raise LedgerError("event kind", "must be lower-case words joined by '.'", repr(event.kind)[:80])
    _check_text("subject", event.subject)
    if len(event.facts) > MAX_FACTS:
        raise LedgerError("event facts", f"must be at most {MAX_FACTS}", len(event.facts))
    for key, value in event.facts.items():
        if not _KEY.fullmatch(key):
            raise LedgerError("event fact", "must be called by at most 64 letters, digits, '_', '.' or '-'", repr(key)[:80])
        _check_value(key, value)
    return canonical_json(_plain(event.facts)).decode()


def _plain(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return dict(facts)


def _check_value(key: str, value: object) -> None:
    if isinstance(value, str):
        _check_text(key, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise LedgerError(f"event fact {key}", "must be finite", value)
    elif not (value is None or isinstance(value, bool | int | float)):
        raise LedgerError(f"event fact {key}", "must be text, a number, true, false or nothing", type(value).__name__)


def _check_text(key: str, value: str) -> None:
    if len(value) > MAX_TEXT or not (value.isprintable() or not value):
        got = f"{len(value)} characters"
        raise LedgerError(f"event {key}", f"must be at most {MAX_TEXT} printable characters on one line", got, "Give a digest instead.")
