"""The ledger: an append-only chain of signed facts, each bound to the one before it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import LedgerError
from ingle.core.event import Event
from ingle.core.lock import file_lock
from ingle.ledger.head import Head, claims_rows, move_head, read_head, sign_head, start_head
from ingle.ledger.keys import Signer, load_signer, load_verifier, lost_key, new_signer, save_signer
from ingle.ledger.row import Row, facts_text, row_hash
from ingle.ledger.table import PAGE_ROWS, appending, insert_row, last_row, newest_rows, rows_from, touch
from ingle.ledger.verify import Verification, row_problem, verify_chain

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

LOSS = "ledger.loss"
"""Kind of the fact that rows were lost and the owner accepted it."""


class Ledger:
    """The ledger of one home. `append` is a `core.event.Sink`; one object may serve several threads."""

    def __init__(self, engine: "Engine", keys: Path) -> None:
        """`engine`: a database with the tables of `MIGRATIONS`. `keys`: the folder of the key and the head. The constructor touches
        neither."""
        self._engine = engine
        self._keys = keys
        self._signer: Signer | None = None

    def append(self, event: Event) -> Row:
        """Append a fact. When this returns, the fact survives a power cut.

        The first call makes the key. Raises LedgerError if the event holds more than short flat facts, the key is lost, exposed or swapped,
        or rows are missing; HomeError if the database can't be written.
        """
        facts = facts_text(event)
        signer = self._signer or self._open_key()
        self._signer = signer
        with appending(self._engine) as connection:
            last = last_row(connection)
            self._check_head(connection, last, signer)
            row = self._sign_row(signer, last, event, facts)
            insert_row(connection, row)
        # Behind the commit: a head that is behind the rows is made good by the next event, one ahead would accuse us of a loss.
        move_head(self._keys, sign_head(signer, row.seq, row.hash), signer.verifier)
        return row

    def ready(self) -> None:
        """Return if a fact could be written now. Writes, but no fact. Raises as `append` does."""
        signer = self._signer or self._open_key()
        with appending(self._engine) as connection:
            self._check_head(connection, last_row(connection), signer)
            touch(connection)

    def read(self, kind: str | None = None, subject: str | None = None, last: int | None = None) -> Iterator[Row]:
        """Yield facts, the newest first. `kind` also matches kinds below it (`delta` finds `delta.accept`). Verifies nothing."""
        before: int | None = None
        left = last
        while left is None or left > 0:
            with self._engine.connect() as connection:
                rows = newest_rows(connection, kind, subject, before, PAGE_ROWS if left is None else min(left, PAGE_ROWS))
            if not rows:
                return
            yield from rows
            before = rows[-1].seq
            left = None if left is None else left - len(rows)

    def verify(self, head: Head | None = None) -> Verification:
        """Verify the whole chain; `head` is one that was exported earlier. See `verify_chain`."""
        return verify_chain(self._engine, self._keys, head)

    def head(self) -> Head | None:
        """Return this home's signed head, to be exported; None if there is none yet."""
        verifier = load_verifier(self._keys)
        return read_head(self._keys, verifier) if verifier else None

    def accept_loss(self) -> Row:
        """Continue after rows or the head were lost (a database restored from an older backup, a deleted head).

        The loss itself becomes a fact that says how far the chain had come; earlier exported heads still show it. Raises LedgerError if
        nothing is lost, or the key is.
        """
        signer = load_signer(self._keys)
        if signer is None:
            raise lost_key(self._keys)
        with file_lock(self._keys / "ledger.lock"), appending(self._engine) as connection:
            last, head = last_row(connection), read_head(self._keys, signer.verifier)
            if self._head_problem(connection, last, signer) is None:
                raise LedgerError("ledger", "has lost nothing", f"{last.seq if last else 0} rows")
            facts = {"head_seq": head.seq if head else None, "head_hash": head.hash if head else None, "found_seq": last.seq if last else 0}
            event = Event(LOSS, "ledger", facts)
            row = self._sign_row(signer, last, event, facts_text(event))
            insert_row(connection, row)
            # Before the commit, unlike in `append`: if we die between the two, the loss is still there to be accepted.
            start_head(self._keys, sign_head(signer, row.seq, row.hash))
        return row

    def _open_key(self) -> Signer:
        with file_lock(self._keys / "ledger.lock"):
            signer = load_signer(self._keys)
            if signer is not None:
                return signer
            with self._engine.connect() as connection:
                begun = last_row(connection) is not None
            if begun or claims_rows(self._keys):
                raise lost_key(self._keys)
            signer = new_signer()
            # The head first: from the moment that there is a key there is a head, so a missing one was taken away.
            start_head(self._keys, sign_head(signer, 0, signer.verifier.fingerprint))
            save_signer(self._keys, signer)
            return signer

    def _check_head(self, connection: "Connection", last: Row | None, signer: Signer) -> None:
        problem = self._head_problem(connection, last, signer)
        if problem is not None:
            cure = (
                "Run `ingle verify`. Restore the database and the folder of keys from the same backup; "
                "or go on without what is missing (`ingle verify --accept-loss`), which is itself recorded."
            )
            raise LedgerError("ledger", "must hold every row that was signed", problem, cure)

    def _head_problem(self, connection: "Connection", last: Row | None, signer: Signer) -> str | None:
        """Return why nothing may be appended: a forged continuation would hide a loss. Costs nothing if the head is at the last row."""
        head = read_head(self._keys, signer.verifier)
        seq, newest = (last.seq, last.hash) if last else (0, signer.verifier.fingerprint)
        if head is None:
            return f"{seq} rows and no signed head"
        if head.seq > seq:
            return f"{seq} rows where the signed head says {head.seq}"
        if head.seq == seq:
            return None if head.hash == newest else f"a row {seq} that is not the one of the signed head"
        # Some process died between its commit and its head, or is just there: the rows in between must be ours.
        number, prev = head.seq, head.hash
        if number > 0 and [row.hash for row in rows_from(connection, number - 1, 1)] != [prev]:
            return f"a row {number} that is not the one of the signed head"
        while rows := rows_from(connection, number):
            for row in rows:
                if problem := row_problem(row, number + 1, prev, signer.verifier):
                    return f"row {number + 1}: {problem}"
                number, prev = row.seq, row.hash
        return None

    @staticmethod
    def _sign_row(signer: Signer, last: Row | None, event: Event, facts: str) -> Row:
        seq, prev = (last.seq + 1, last.hash) if last else (1, signer.verifier.fingerprint)
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        hashed = row_hash(seq, at, event.kind, event.subject, facts, prev)
        return Row(seq, at, event.kind, event.subject, facts, prev, hashed, signer.sign(bytes.fromhex(hashed)))
