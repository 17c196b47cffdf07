"""The ledger: an append-only chain of signed facts, each bound to the one before it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import LedgerError
from ingle.core.process import file_lock
from ingle.core.report import Event
from ingle.ledger.head import Head, claims_rows, move_head, read_head, sign_head, start_head
from ingle.ledger.keys import KeyRing, Signer, load_ring, load_verifiers, lost_key, new_signer, read_ring, save_ring, sweep_keys
from ingle.ledger.link import LOSS, ROTATE, ROTATED, Link, follow, rotation_event, signed_by
from ingle.ledger.nodes import add_row, remade, standing
from ingle.ledger.row import Row, facts_text, row_hash
from ingle.ledger.table import PAGE_ROWS, appending, insert_row, last_row, newest_rows, rows_from, touch
from ingle.ledger.tree import Peaks
from ingle.ledger.verify import Verification, verify_chain

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Ledger:
    """The ledger of one home. `append` is a `core.report.Sink`; one object may serve several threads."""

    def __init__(self, engine: "Engine", keys: Path) -> None:
        """`engine`: a database with the tables of `MIGRATIONS`. `keys`: the folder of the key and the head. The constructor touches
        neither."""
        self._engine = engine
        self._keys = keys
        self._ring: KeyRing | None = None
        self._tree: tuple[str, Peaks | None] = ("", None)  # (hash of the last row, the tree up to it) as this object left them

    def append(self, event: Event) -> Row:
        """Append a fact. When this returns, the fact survives a power cut.

        The first call makes the key. Raises LedgerError if the event holds more than short flat facts, the key is lost, exposed or swapped,
        or rows are missing; HomeError if the database can't be written.
        """
        facts = facts_text(event)
        ring = self._ring or self._open_keys()
        with appending(self._engine) as connection:
            last = last_row(connection)
            ring, signer = self._whose_turn(connection, last, ring)
            peaks = self._standing(connection, last, ring)
            row = self._sign_row(signer, last, event, facts)
            peaks = self._insert(connection, peaks, row)
        # Behind the commit: a head that is behind the rows is made good by the next event, one ahead would accuse us of a loss.
        move_head(self._keys, sign_head(signer, row.seq, row.hash, _root(peaks)), ring.verifiers)
        self._tree = (row.hash, peaks)
        self._ring = ring if len(ring.signers) == 1 else self._settle_keys()
        return row

    def ready(self) -> None:
        """Return if a fact could be written now. Writes, but no fact. Raises as `append` does."""
        ring = self._ring or self._open_keys()
        with appending(self._engine) as connection:
            self._whose_turn(connection, last_row(connection), ring)
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

    def check_key(self) -> None:
        """Return if the private key is the one that the chain ends with. Writes nothing.

        Raises LedgerError as `append` does, if it is lost, exposed, damaged or swapped.
        """
        before = read_ring(self._keys)
        with self._engine.connect() as connection:
            last = last_row(connection)
        ring = read_ring(self._keys)
        here = (*before.signers, *ring.signers)  # both: a rotation between them leaves one key before the row, and one behind it
        # A last row that none of our keys signed is the chain's fault, and `verify` names it.
        ended = last is not None and any(signed_by(last, key) for key in ring.verifiers)
        if last is not None and ended and not any(signed_by(last, signer.verifier) for signer in here):
            raise lost_key(self._keys)

    def head(self) -> Head | None:
        """Return this home's signed head, to be exported; None if there is none yet."""
        verifiers = load_verifiers(self._keys)
        return read_head(self._keys, verifiers) if verifiers else None

    def rotate(self) -> Row:
        """Replace the key by a new one. The old private key is deleted; what it signed stays proven.

        The old key's last fact names the new key, and the new key's first fact, which is returned, names the old one. Raises LedgerError
        as `append` does, and if there is no key yet.
        """
        with file_lock(self._keys / "ledger.lock"):
            sweep_keys(self._keys)
            ring = load_ring(self._keys)
            if not ring.verifiers:
                raise LedgerError("ledger", "has no key yet", "", "It makes one for its first fact.")
            with appending(self._engine) as connection:
                last = last_row(connection)
                ring, old = self._whose_turn(connection, last, ring)
                peaks = self._standing(connection, last, ring)
                new = new_signer()
                kept = ring.verifiers[: ring.verifiers.index(old.verifier) + 1]
                # Before the commit, both: whoever appends behind it needs the new one.
                ring = KeyRing((*kept, new.verifier), (old, new))
                save_ring(self._keys, ring)
                handed, taken = rotation_event(ROTATE, new.verifier), rotation_event(ROTATED, old.verifier)
                ending = self._sign_row(old, last, handed, facts_text(handed))
                begun = self._sign_row(new, ending, taken, facts_text(taken))
                peaks = self._insert(connection, self._insert(connection, peaks, ending), begun)
            start_head(self._keys, sign_head(new, begun.seq, begun.hash, _root(peaks)))
            self._ring = KeyRing(ring.verifiers, (new,))
            save_ring(self._keys, self._ring)
        return begun

    def accept_loss(self) -> Row:
        """Continue after rows or the head were lost (a database restored from an older backup, a deleted head).

        The loss itself becomes a fact that says how far the chain had come; earlier exported heads still show it. Raises LedgerError if
        nothing is lost, or the key is.
        """
        ring = load_ring(self._keys)
        if not ring.signers:
            raise lost_key(self._keys)
        with file_lock(self._keys / "ledger.lock"), appending(self._engine) as connection:
            last, head = last_row(connection), read_head(self._keys, ring.verifiers)
            if isinstance(self._end(connection, last, ring), Link):
                raise LedgerError("ledger", "has lost nothing", f"{last.seq if last else 0} rows")
            facts = {"head_seq": head.seq if head else None, "head_hash": head.hash if head else None, "found_seq": last.seq if last else 0}
            event = Event(LOSS, "ledger", facts)
            # A database from before a rotation ends with a key that is gone: then the newest goes on.
            signer = next((one for one in ring.signers if last and signed_by(last, one.verifier)), ring.signers[-1])
            found = sign_head(signer, last.seq, last.hash) if last else None
            peaks = remade(connection, found, ring.verifiers) if found else Peaks()
            row = self._sign_row(signer, last, event, facts_text(event))
            peaks = self._insert(connection, peaks, row)
            # Before the commit, unlike in `append`: if we die between the two, the loss is still there to be accepted.
            start_head(self._keys, sign_head(signer, row.seq, row.hash, _root(peaks)))
        return row

    def _standing(self, connection: "Connection", last: Row | None, ring: KeyRing) -> Peaks | None:
        """Return the tree up to the last row, which is the chain's end; None where older rows were changed, so that there can't be one."""
        hash_, peaks = self._tree
        if last is not None and hash_ == last.hash:
            return peaks
        head = read_head(self._keys, ring.verifiers)
        assert head is not None, "the chain's end was found by it"
        return standing(connection, head)

    @staticmethod
    def _insert(connection: "Connection", peaks: Peaks | None, row: Row) -> Peaks | None:
        insert_row(connection, row)
        return None if peaks is None else add_row(connection, peaks, row)

    def _open_keys(self) -> KeyRing:
        with file_lock(self._keys / "ledger.lock"):
            ring = load_ring(self._keys)
            if ring.signers:
                return ring
            with self._engine.connect() as connection:
                begun = last_row(connection) is not None
            if begun or claims_rows(self._keys):
                raise lost_key(self._keys)
            signer = new_signer()
            ring = KeyRing((signer.verifier,), (signer,))
            # The head first: from the moment that there is a key there is a head, so a missing one was taken away.
            start_head(self._keys, sign_head(signer, 0, signer.verifier.fingerprint, Peaks().root.hex()))
            save_ring(self._keys, ring)
            return ring

    def _settle_keys(self) -> KeyRing:
        """End a rotation that was interrupted: keep only the key whose turn it is, as the head says."""
        with file_lock(self._keys / "ledger.lock"):  # nobody rotates meanwhile
            sweep_keys(self._keys)
            ring = load_ring(self._keys)
            head = read_head(self._keys, ring.verifiers)
            if len(ring.signers) > 1 and head is not None and (signer := ring.signer(head.fingerprint)):
                ring = KeyRing(ring.verifiers, (signer,))
                save_ring(self._keys, ring)
            return ring

    def _whose_turn(self, connection: "Connection", last: Row | None, ring: KeyRing) -> tuple[KeyRing, Signer]:
        """Return the home's keys, and the one that signs the next row."""
        end = self._end(connection, last, ring)
        if isinstance(end, str) or ring.signer(end.verifier.fingerprint) is None:
            ring = load_ring(self._keys)  # another process may have rotated
            end = self._end(connection, last, ring)
        if isinstance(end, str):
            cure = (
                "Run `ingle verify`. Restore the database and the folder of keys from the same backup; "
                "or go on without what is missing (`ingle verify --accept-loss`), which is itself recorded."
            )
            raise LedgerError("ledger", "must hold every row that was signed", end, cure)
        signer = ring.signer(end.verifier.fingerprint)
        if signer is None:
            raise lost_key(self._keys)
        return ring, signer

    def _end(self, connection: "Connection", last: Row | None, ring: KeyRing) -> Link | str:
        """Return the chain's end, or why nothing may be appended: a forged continuation would hide a loss.

        Costs nothing if the head is at the last row.
        """
        head = read_head(self._keys, ring.verifiers)
        seq = last.seq if last else 0
        if head is None:
            return f"{seq} rows and no signed head"
        if head.seq > seq:
            return f"{seq} rows where the signed head says {head.seq}"
        link = Link(head.seq, head.hash, next(key for key in ring.verifiers if key.fingerprint == head.fingerprint))
        if link.seq == seq and link.hash != (last.hash if last else link.verifier.fingerprint):
            return f"a row {seq} that is not the one of the signed head"
        if link.seq == seq:
            return link
        # Some process died between its commit and its head, or is just there: the rows in between must be ours.
        if link.seq > 0 and [row.hash for row in rows_from(connection, link.seq - 1, 1)] != [link.hash]:
            return f"a row {link.seq} that is not the one of the signed head"
        while rows := rows_from(connection, link.seq):
            for row in rows:
                after = follow(link, row, ring.verifiers)
                if isinstance(after, str):
                    return f"row {link.seq + 1}: {after}"
                link = after
        return link if link.successor is None else f"a row {link.seq} that hands over to a key that did not take over"

    @staticmethod
    def _sign_row(signer: Signer, last: Row | None, event: Event, facts: str) -> Row:
        seq, prev = (last.seq + 1, last.hash) if last else (1, signer.verifier.fingerprint)
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        hashed = row_hash(seq, at, event.kind, event.subject, facts, prev)
        return Row(seq, at, event.kind, event.subject, facts, prev, hashed, signer.sign(bytes.fromhex(hashed)))


def _root(peaks: Peaks | None) -> str:
    return "" if peaks is None else peaks.root.hex()
