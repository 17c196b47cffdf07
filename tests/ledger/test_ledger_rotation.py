"""A rotation of the ledger's key: the rows alone say whose turn it is, whoever forges, swaps, cuts or dies."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ledger_place import Place, fill

from ingle.core.errors import LedgerError
from ingle.core.report import Event
from ingle.ledger import chain
from ingle.ledger.head import HEAD, Head, sign_head, start_head
from ingle.ledger.keys import KEY, PUBLIC, KeyRing, Signer, load_ring, new_signer, save_ring
from ingle.ledger.link import LOSS, ROTATE, ROTATED, rotation_event
from ingle.ledger.row import Row, facts_text, row_hash

posix = pytest.mark.skipif(os.name == "nt", reason="forks of POSIX")
WRITERS = {"rotate", "save_ring", "start_head", "insert_row", "atomic_file", "sync_folder"}
"""Functions between whose lines the disk may change."""


def problem(place: Place, exported: Head | None = None) -> str:
    with place.open() as ledger:
        found = ledger.verify(exported).problem
    return f"{found.seq}: {found.what}" if found else ""


def rotate(place: Place) -> Row:
    with place.open() as ledger:
        return ledger.rotate()


def head_of(place: Place) -> Head:
    with place.open() as ledger:
        head = ledger.head()
    assert head is not None
    return head


def signer_of(place: Place) -> Signer:
    [signer] = load_ring(place.keys).signers
    return signer


def write(place: Place, row: Row) -> None:
    values = ", ".join(f"'{value}'" for value in (row.at, row.kind, row.subject, row.facts, row.prev, row.hash, row.signature))
    place.sql(
        f"INSERT INTO ledger (seq, at, kind, subject, facts, prev_hash, hash, signature) VALUES ({row.seq}, {values})".replace(":", "\\:")
    )


def signed(signer: Signer, seq: int, prev: str, event: Event) -> Row:
    at, facts = "2026-01-01T00:00:00.000000+00:00", facts_text(event)
    hashed = row_hash(seq, at, event.kind, event.subject, facts, prev)
    return Row(seq, at, event.kind, event.subject, facts, prev, hashed, signer.sign(bytes.fromhex(hashed)))


def test_each_key_names_the_other_and_old_heads_stay_proven(place: Place) -> None:
    heads = []
    for rows in (3, 0, 2):
        fill(place, rows)
        heads.append(head_of(place) if rows else None)
        old = signer_of(place).verifier
        taken = rotate(place)
        new = signer_of(place).verifier
        with place.open() as ledger:
            after, before = ledger.read(last=2)
        assert after == taken and (before.kind, after.kind) == (ROTATE, ROTATED)
        assert before.values == {"key": new.fingerprint, "public": new.public}
        assert after.values == {"key": old.fingerprint, "public": old.public}
        assert old.accepts(before.signature, bytes.fromhex(before.hash)) and new.accepts(after.signature, bytes.fromhex(after.hash))
        assert [key.fingerprint for key in load_ring(place.keys).verifiers][-2:] == [old.fingerprint, new.fingerprint]
        heads.append(head_of(place))
    fill(place, 2)
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is None and found.count == 13
    assert found.keys == tuple(key.fingerprint for key in load_ring(place.keys).verifiers) and len(found.keys) == 4
    for head in heads:
        assert head is None or problem(place, head) == ""


def test_the_old_private_key_is_gone(place: Place) -> None:
    fill(place, 1)
    old = (place.keys / KEY).read_text()
    rotate(place)
    assert all(old.strip() not in path.read_text("utf-8", "replace") for path in place.keys.rglob("*") if path.is_file())
    if os.name != "nt":
        assert (place.keys / KEY).stat().st_mode & 0o777 == 0o600


def test_a_key_from_before_a_rotation_is_no_key_of_the_chain(place: Place) -> None:
    fill(place, 1)
    old = (place.keys / KEY).read_text()
    with place.open() as ledger:
        ledger.check_key()
    rotate(place)
    (place.keys / KEY).write_text(old)
    with place.open() as ledger:
        assert ledger.verify().problem is None
        for call in (ledger.check_key, lambda: ledger.append(Event("pull"))):
            with pytest.raises(LedgerError, match="facts signed with it exist: another key"):
                call()


def test_a_rotation_while_the_key_is_checked_is_no_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(place, 1)
    asked = chain.last_row

    def meanwhile(connection: Any) -> Row | None:
        monkeypatch.undo()
        before = asked(connection)
        rotate(place)
        return before

    with place.open() as ledger:
        monkeypatch.setattr(chain, "last_row", meanwhile)
        ledger.check_key()
        ledger.check_key()


def test_a_home_without_a_key_has_none_to_rotate(place: Place) -> None:
    with place.open() as ledger, pytest.raises(LedgerError, match="has no key yet"):
        ledger.rotate()
    fill(place, 1)
    (place.keys / KEY).unlink()
    with place.open() as ledger, pytest.raises(LedgerError, match="facts signed with it exist"):
        ledger.rotate()


def test_who_had_the_ledger_open_goes_on_with_the_new_key(place: Place) -> None:
    with place.open() as server:
        server.append(Event("answer"))
        rotate(place)
        server.append(Event("answer"))
        rotate(place)
        rotate(place)
        with place.open() as other:
            other.append(Event("answer"))
        assert server.append(Event("answer")).seq == 10
    assert problem(place) == ""


def test_rotations_while_many_append(place: Place) -> None:
    fill(place, 1)
    failures: list[BaseException] = []

    def append() -> None:
        try:
            with place.open() as ledger:
                for number in range(30):
                    ledger.append(Event("answer", "m", {"n": number}))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=append) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        rotate(place)
    for thread in threads:
        thread.join()
    with place.open() as ledger:
        found = ledger.verify()
    assert not failures and found.problem is None and found.count == 1 + 90 + 16 and len(found.keys) == 9


@pytest.mark.journey
@posix
def test_a_rotation_that_dies_at_any_line_leaves_a_home_that_goes_on(file_place: Place, tmp_path: Path) -> None:
    fill(file_place, 2)
    exported, first = head_of(file_place), signer_of(file_place)
    outcomes = []
    for line in range(1, 2000):
        place = file_place.copy_to(tmp_path / "dying")
        if died := _rotate_and_die(place, line):
            assert problem(place, exported) == "", f"at line {line}, before anything goes on"
        fill(place, 1)
        with place.open() as ledger:
            found = ledger.verify(exported)
        assert found.problem is None, f"at line {line}: {found.problem}"
        took = len(found.keys) == 2
        signer = signer_of(place)  # one alone: what was begun is ended
        assert (signer.verifier.fingerprint == first.verifier.fingerprint) != took, f"at line {line}"
        rotate(place)
        assert problem(place, exported) == ""
        private = first.key.private_bytes_raw().hex()
        assert not any(private in path.read_text("utf-8", "replace") for path in place.keys.rglob("*") if path.is_file()), f"at line {line}"
        outcomes.append(took)
        if not died:
            break
    assert not died and len(outcomes) > 60
    assert outcomes == sorted(outcomes) and 15 < sum(outcomes) < len(outcomes) - 15, "it was killed before its commit, and behind it"


def _rotate_and_die(place: Place, line: int) -> bool:
    """Rotates in a child, which kills itself before the n-th line of what writes. Returns whether it died."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_name not in WRITERS:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            with place.open() as ledger:
                sys.settrace(trace)
                ledger.rotate()
                sys.settrace(None)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_a_rotation_that_the_old_key_did_not_sign_is_found(place: Place) -> None:
    fill(place, 3)
    stranger, own, head = new_signer(), signer_of(place), head_of(place)
    handed = signed(stranger, 4, head.hash, rotation_event(ROTATE, stranger.verifier))
    taken = signed(stranger, 5, handed.hash, rotation_event(ROTATED, own.verifier))
    write(place, handed)
    write(place, taken)
    assert problem(place) == f"4: its signature was not made with key {own.verifier.fingerprint[:12]}, which signs here"
    # With the whole folder of keys in hand, but for the old private key, it is still found.
    save_ring(place.keys, KeyRing((own.verifier, stranger.verifier), (stranger,)))
    start_head(place.keys, sign_head(stranger, 5, taken.hash))
    assert problem(place).startswith("4: its signature was not made with key")


def test_a_key_that_takes_over_without_being_handed_to_is_found(place: Place) -> None:
    fill(place, 2)
    stranger, own, head = new_signer(), signer_of(place), head_of(place)
    write(place, signed(stranger, 3, head.hash, rotation_event(ROTATED, own.verifier)))
    assert problem(place).startswith("3: its signature")
    place.sql("DELETE FROM ledger WHERE seq = 3")
    write(place, signed(own, 3, head.hash, rotation_event(ROTATED, stranger.verifier)))
    assert problem(place) == "3: it takes over from a key that did not hand over to it"


def test_whoever_is_handed_to_must_take_over_itself(place: Place) -> None:
    fill(place, 2)
    stranger, own, head = new_signer(), signer_of(place), head_of(place)
    handed = signed(own, 3, head.hash, rotation_event(ROTATE, stranger.verifier))
    write(place, handed)
    assert problem(place) == f"4: it was cut off: key {stranger.verifier.fingerprint[:12]} was to take over"
    write(place, signed(stranger, 4, handed.hash, Event("pull")))
    assert problem(place) == f"4: the key {stranger.verifier.fingerprint[:12]} was handed over to and did not take over"
    place.sql("DELETE FROM ledger WHERE seq = 4")
    write(place, signed(own, 4, handed.hash, Event("pull")))
    assert problem(place).startswith("4: its signature")
    for facts in ({}, {"key": "0" * 64, "public": stranger.verifier.public}, {"key": stranger.verifier.fingerprint, "public": "zz"}):
        place.sql("DELETE FROM ledger WHERE seq > 2")
        write(place, signed(own, 3, head.hash, Event(ROTATE, "ledger", facts)))
        assert problem(place) == "3: it hands over to no key"


def test_removed_rows_of_a_rotation_are_found(place: Place) -> None:
    fill(place, 2)
    rotate(place)
    fill(place, 2)
    with place.open() as ledger:
        rows = {row.seq: row for row in ledger.read()}
    for gone in (3, 4):
        place.sql(f"DELETE FROM ledger WHERE seq = {gone}")
        assert problem(place) == f"{gone}: row {gone} is missing"
        write(place, rows[gone])
    place.sql("DELETE FROM ledger WHERE seq IN (3, 4)")
    place.sql("UPDATE ledger SET seq = seq - 2 WHERE seq > 4")
    assert problem(place) == "3: it doesn't follow the row before it"
    place.sql("DELETE FROM ledger WHERE seq > 2")
    assert problem(place) == "3: the last 4 rows were cut off: the signed head says that there were 6"
    with place.open() as ledger, pytest.raises(LedgerError, match="2 rows where the signed head says 6"):
        ledger.append(Event("pull"))


def test_the_old_private_key_forges_nothing_any_more(place: Place) -> None:
    fill(place, 2)
    leaked, early = signer_of(place), head_of(place)
    rotate(place)
    fill(place, 2)
    late = head_of(place)
    # It signs on behind the new key's rows.
    write(place, signed(leaked, 7, late.hash, Event("pull")))
    assert problem(place).startswith("7: its signature was not made with key")
    place.sql("DELETE FROM ledger WHERE seq = 7")
    assert problem(place) == ""
    # A head of its own, for a row that was not its own.
    assert problem(place, sign_head(leaked, 6, late.hash)).startswith("6: the exported head was signed by key")
    # It begins the past anew, from before it handed over.
    with place.open() as ledger:
        rows = {row.seq: row for row in ledger.read()}
    place.sql("DELETE FROM ledger WHERE seq > 1")
    forged = signed(leaked, 2, rows[1].hash, Event("pull", "forged"))
    write(place, forged)
    handed = signed(leaked, 3, forged.hash, Event(ROTATE, "ledger", rows[3].values))
    write(place, handed)
    write(place, rows[4])
    assert problem(place) == "4: it doesn't follow the row before it"
    place.sql("DELETE FROM ledger WHERE seq > 2")
    assert "cut off" in problem(place)
    assert problem(place, early).startswith("2: it is not the row that the exported head")


def test_swapped_key_files_are_found(place: Place) -> None:
    fill(place, 2)
    old = (place.keys / KEY).read_text()
    before = {name: (place.keys / name).read_bytes() for name in (KEY, PUBLIC, HEAD)}
    rotate(place)
    after = {name: (place.keys / name).read_bytes() for name in (KEY, PUBLIC, HEAD)}
    (place.keys / KEY).write_text(old)
    with place.open() as ledger, pytest.raises(LedgerError, match="must be there to sign"):
        ledger.append(Event("pull"))
    for name, data in before.items():  # the whole folder goes back in time, the database does not
        (place.keys / name).write_bytes(data)
    assert problem(place).startswith("0: it goes on with key") and "older than the database" in problem(place)
    with place.open() as ledger, pytest.raises(LedgerError):
        ledger.append(Event("pull"))
    stranger = new_signer()
    for public in (stranger.verifier.public, f"{signer_of(place).verifier.public}\n{stranger.verifier.public}"):
        (place.keys / PUBLIC).write_text(public)
        assert problem(place)
    for name, data in after.items():
        (place.keys / name).write_bytes(data)
    assert problem(place) == ""


def test_lost_public_keys_are_made_anew_from_key_and_rows(place: Place) -> None:
    fill(place, 2)
    exported = head_of(place)
    rotate(place)
    rotate(place)
    (place.keys / PUBLIC).unlink()
    assert problem(place, exported) == ""
    fill(place, 1)
    rotate(place)
    assert problem(place, exported) == ""


def test_a_database_from_before_the_rotation_goes_on_as_a_loss(file_place: Place) -> None:
    fill(file_place, 2)
    early, backup = head_of(file_place), file_place.database.read_bytes()
    rotate(file_place)
    fill(file_place, 1)
    late = head_of(file_place)
    for file in file_place.folder.glob("facts.db*"):
        file.unlink()
    file_place.database.write_bytes(backup)
    with file_place.open() as ledger:
        with pytest.raises(LedgerError, match="2 rows where the signed head says 5"):
            ledger.append(Event("pull"))
        row = ledger.accept_loss()
        assert (row.seq, row.kind, row.values["head_seq"]) == (3, LOSS, 5)
        ledger.append(Event("pull"))
        assert len(ledger.verify().keys) == 2
    assert problem(file_place, early) == ""
    assert problem(file_place, late).startswith("5: the last") or "cut" in problem(file_place, late)
    # Only a key that this home names may do so.
    stranger, end = new_signer(), head_of(file_place)
    write(file_place, signed(stranger, 5, end.hash, Event(LOSS, "ledger", {"found_seq": 4})))
    assert problem(file_place).startswith("5: its signature")


def test_verifying_writes_nothing(place: Place) -> None:
    fill(place, 1)
    rotate(place)
    (place.keys / PUBLIC).unlink()
    assert problem(place) == "" and not (place.keys / PUBLIC).exists()


def test_rows_whose_time_runs_backwards_are_told(place: Place) -> None:
    fill(place, 2)
    signer, head = signer_of(place), head_of(place)
    write(place, signed(signer, 3, head.hash, Event("pull")))  # at the beginning of the year
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is None and found.backwards == (3,)
