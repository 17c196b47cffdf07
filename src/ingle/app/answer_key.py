"""The key of the answers' digests. It is made once, and its fingerprint is a fact: a lost or another key is refused, for then nothing
that was answered before could be proven.

answers.key    64 hex digits in the folder of keys; mode 600
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, write_atomic
from ingle.core.report import Event, Fact
from ingle.home.place import Home
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row


KEY = "answers.key"  # name of the file, kind of the fact that a key has this fingerprint, and subject of all facts about the key
LOSS = "answers.loss"  # kind of the fact that the key was lost, and that the owner goes on with another one
_LOCK = "answers-key"


def answer_key(home: Home, engine: "Engine | None" = None) -> bytes:
    """Return the key of this home's digests, made at the first call. `engine`: the home's database, if it is open.

    Its fingerprint becomes a fact as soon as there is none. Raises LedgerError if the key is lost though answers exist, is not the one of
    the fact, can be read by others or is damaged; and if the fact can't be written.
    """
    if engine is None:
        from ingle.home.database import open_database
        from ingle.ledger.table import MIGRATIONS

        opened = open_database(home.database_url, {"ledger": MIGRATIONS})
        try:
            return answer_key(home, opened)
        finally:
            opened.dispose()
    ledger = Ledger(engine, home.keys)
    key, said = read_answer_key(home), _said(ledger)
    if key is not None and said == fingerprint(key):
        return key
    with home.lock(_LOCK):
        key, said = read_answer_key(home), _said(ledger)  # another process may have made both meanwhile
        if fault := _fault(ledger, key, said):
            raise _refused(home, fault)
        if key is None:
            key = _make(home)
        if said is None:
            ledger.append(Event(KEY, KEY, {"fingerprint": fingerprint(key)}))
    return key


def key_of_answer(home: Home, engine: "Engine", seq: int) -> bytes:
    """Return the key under which fact `seq`, an answer's, has its digests. Raises as `answer_key` does, and LedgerError if it was lost."""
    key = answer_key(home, engine)
    if not proven_by(Ledger(engine, home.keys), key)(seq):
        rule = f"The key of fact {seq} was lost, so this answer can't be proven"
        raise LedgerError("event", rule, "", "`ingle log --kind answers.loss` says since when.")
    return key


def read_answer_key(home: Home) -> bytes | None:
    """Return the key that lies in this home; None if there is none. Raises LedgerError if others can read it or it is damaged."""
    path = home.keys / KEY
    if not path.exists():
        return None
    with os_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii", "replace").strip()
    if os.name != "nt" and mode & 0o077:
        raise LedgerError(str(path), "must be readable by its owner alone", f"mode {mode:o}", f"Run: chmod 600 '{path}'")
    key = _parsed(text)
    if key is None:
        raise LedgerError(str(path), "must hold 64 hex digits", f"{len(text)} characters", _CURE)
    return key


def fingerprint(key: bytes) -> str:
    """Return what the ledger says of a key; nobody can find the key by it."""
    return hmac.digest(key, b"ingle.answers.key fingerprint", hashlib.sha256).hex()


def key_fault(home: Home, ledger: Ledger) -> str:
    """Return what is wrong with the key; "" = nothing."""
    try:
        return _fault(ledger, read_answer_key(home), _said(ledger))
    except LedgerError as error:
        return error.sentence


def accept_lost_key(home: Home, ledger: Ledger) -> "Row":
    """Go on after the key was lost, or with another one that lies in its place. The loss is a fact: older answers can't be proven by it.

    Raises LedgerError if nothing is wrong with the key, or if others can read it.
    """
    with home.lock(_LOCK):
        path = home.keys / KEY
        if not key_fault(home, ledger):
            raise LedgerError(KEY, "is not lost")
        damaged = path.exists() and _parsed(path.read_text("ascii", "replace").strip()) is None
        key = _make(home) if damaged or not path.exists() else read_answer_key(home)
        assert key is not None
        facts: dict[str, Fact] = {"lost": _said(ledger), "fingerprint": fingerprint(key)}
        return ledger.append(Event(LOSS, KEY, facts))


def proven_by(ledger: Ledger, key: bytes) -> Callable[[int], bool]:
    """Return whether the fact of an answer, by its number, has digests under `key`: before a loss they are under the lost one."""
    losses = [(row.seq, row.values.get("lost")) for row in reversed(tuple(ledger.read(LOSS, KEY)))]
    mine = fingerprint(key)
    now = _said(ledger) or mine  # a key of an older Ingle, of which no fact speaks yet
    return lambda seq: next((lost for at, lost in losses if seq < at), now) == mine


_CURE = (
    "Restore it from a backup; or go on with a new one (`ingle verify --accept-loss`), which is itself recorded: "
    "answers so far can then no longer be proven."
)


def _refused(home: Home, fault: str) -> LedgerError:
    return LedgerError(str(home.keys / KEY), "must be the key of the answers' digests", fault, _CURE)


def _fault(ledger: Ledger, key: bytes | None, said: str | None) -> str:
    if key is None:
        return "no such file, and answers exist" if said is not None or _answered(ledger) else ""
    return "" if said in (None, fingerprint(key)) else f"one with fingerprint {fingerprint(key)[:12]}, where the ledger says {said[:12]}"


def _said(ledger: Ledger) -> str | None:
    """Return the fingerprint that the ledger says; None if it says none yet."""
    return next((str(row.values.get("fingerprint")) for row in ledger.read(subject=KEY, last=1)), None)


def _answered(ledger: Ledger) -> bool:
    return any(next(ledger.read(kind, last=1), None) for kind in ("answer", "refuse"))


def _make(home: Home) -> bytes:
    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_bytes(32)
    write_atomic(home.keys / KEY, key.hex().encode() + b"\n", mode=0o600)
    return key


def _parsed(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == 32 else None
