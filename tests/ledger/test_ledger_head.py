"""A cut-off tail leaves a chain that fits; only the signed head, here or exported, knows better."""

import shutil
from pathlib import Path

import pytest
from ledger_place import Place, fill

from ingle.core.errors import LedgerError
from ingle.core.report import Event
from ingle.ledger.head import HEAD, export_head, load_head, move_head, sign_head, start_head
from ingle.ledger.keys import KeyRing, load_ring, new_signer, save_ring
from ingle.ledger.link import LOSS
from ingle.ledger.row import row_hash


def problem(place: Place, exported: Path | None = None) -> str:
    with place.open() as ledger:
        found = ledger.verify(load_head(exported) if exported else None).problem
    return f"{found.seq}: {found.what}" if found else ""


def export(place: Place) -> Path:
    path = place.folder.parent / "exported.json"
    with place.open() as ledger:
        head = ledger.head()
    assert head is not None
    export_head(head, path)
    assert load_head(path) == head
    return path


def test_a_cut_tail_is_found_and_nothing_is_added_to_it(place: Place) -> None:
    fill(place, 5)
    place.sql("DELETE FROM ledger WHERE seq > 3")
    assert problem(place) == "4: the last 2 rows were cut off: the signed head says that there were 5"
    with place.open() as ledger, pytest.raises(LedgerError, match=r"3 rows where the signed head says 5.*ingle verify"):
        ledger.append(Event("pull"))


def test_a_vanished_database_is_found(place: Place) -> None:
    fill(place, 2)
    place.lose_database()
    assert problem(place).startswith("1: the last 2 rows")
    with place.open() as ledger, pytest.raises(LedgerError, match="0 rows where the signed head says 2"):
        ledger.append(Event("pull"))


def test_a_missing_or_damaged_head_is_found(place: Place) -> None:
    fill(place, 3)
    (place.keys / HEAD).write_bytes(b"{}" * 512)
    assert "missing or damaged" in problem(place)
    (place.keys / HEAD).unlink()
    assert "missing or damaged" in problem(place)
    with place.open() as ledger, pytest.raises(LedgerError, match="no signed head"):
        ledger.append(Event("pull"))


def test_one_torn_slot_does_no_harm(place: Place) -> None:
    fill(place, 4)
    whole = (place.keys / HEAD).read_bytes()
    for torn in (b"x" * 512 + whole[512:], whole[:512] + b"\0" * 512, whole[:700]):
        (place.keys / HEAD).write_bytes(torn)
        assert problem(place) == ""
        fill(place, 1)
        assert problem(place) == ""


def test_a_head_that_was_edited_counts_for_nothing(place: Place) -> None:
    fill(place, 4)
    old = (place.keys / HEAD).read_bytes()
    place.sql("DELETE FROM ledger WHERE seq > 2")
    (place.keys / HEAD).write_bytes(old.replace(b'"seq":4', b'"seq":2').replace(b'"seq":3', b'"seq":2'))
    assert "missing or damaged" in problem(place)


def test_a_head_behind_the_rows_moves_forward(place: Place) -> None:
    fill(place, 3)
    behind = (place.keys / HEAD).read_bytes()
    fill(place, 3)
    (place.keys / HEAD).write_bytes(behind)  # as after a kill between commit and head, three times in a row
    assert problem(place) == ""
    fill(place, 1)
    with place.open() as ledger:
        head = ledger.head()
        assert head is not None and head.seq == 7
    assert problem(place) == ""


def test_a_slower_process_does_not_move_the_head_back(place: Place) -> None:
    fill(place, 4)
    [signer] = load_ring(place.keys).signers
    before = (place.keys / HEAD).read_bytes()
    move_head(place.keys, sign_head(signer, 2, "0" * 64), [signer.verifier])
    assert (place.keys / HEAD).read_bytes() == before


def test_rows_behind_the_head_that_were_forged_are_not_signed_over(place: Place) -> None:
    fill(place, 3)
    behind = (place.keys / HEAD).read_bytes()
    fill(place, 1)
    (place.keys / HEAD).write_bytes(behind)
    place.sql("UPDATE ledger SET subject = 'forged' WHERE seq = 4")
    with place.open() as ledger, pytest.raises(LedgerError, match="row 4: its contents"):
        ledger.append(Event("pull"))


def test_an_exported_head_finds_what_the_home_alone_cannot(file_place: Place, tmp_path: Path) -> None:
    fill(file_place, 2)
    early = file_place.copy_to(tmp_path / "early")
    fill(file_place, 3)
    exported = export(file_place)
    shutil.rmtree(file_place.folder)
    early.copy_to(file_place.folder)  # the whole home goes back in time, its head too
    assert problem(file_place) == ""
    assert problem(file_place, exported) == "3: the last 3 rows were cut off: the exported head says that there were 5"
    fill(file_place, 4)
    assert problem(file_place) == ""
    assert problem(file_place, exported).startswith("5: it is not the row that the exported head was signed for")


def test_an_exported_head_stays_good_while_the_chain_grows(place: Place) -> None:
    fill(place, 2)
    exported = export(place)
    fill(place, 3)
    assert problem(place, exported) == ""


def test_an_edited_exported_head_and_a_file_that_is_none(place: Place, tmp_path: Path) -> None:
    fill(place, 2)
    exported = export(place)
    exported.write_bytes(exported.read_bytes().replace(b'"seq":2', b'"seq":1'))
    assert "edited" in problem(place, exported)
    other = tmp_path / "other"
    surrogate = b'{"seq": 1, "hash": "\\ud800", "fingerprint": "", "signature": ""}'
    for content in (b"", b"[]", b'{"seq": "1", "hash": "", "fingerprint": "", "signature": ""}', b"\xff", surrogate):
        other.write_bytes(content)
        with pytest.raises(LedgerError, match="must be an exported head"):
            load_head(other)


def test_a_swapped_key_is_found(place: Place) -> None:
    fill(place, 3)
    exported = export(place)
    stranger = new_signer()
    save_ring(place.keys, KeyRing((stranger.verifier,), (stranger,)))
    assert problem(place) == "1: the chain was begun with another key"
    # The stranger signs everything anew, head and all: within this home nothing is left to tell.
    prev, seq = stranger.verifier.fingerprint, 0
    with place.open() as ledger:
        rows = list(ledger.read())[::-1]
    for row in rows:
        seq, hashed = row.seq, row_hash(row.seq, row.at, row.kind, row.subject, row.facts, prev)
        signature = stranger.sign(bytes.fromhex(hashed))
        place.sql(f"UPDATE ledger SET prev_hash = '{prev}', hash = '{hashed}', signature = '{signature}' WHERE seq = {seq}")
        prev = hashed
    start_head(place.keys, sign_head(stranger, seq, prev))
    assert problem(place) == ""
    assert problem(place, exported).startswith("0: the exported head was signed by key")


def test_an_accepted_loss_is_itself_recorded(place: Place) -> None:
    fill(place, 5)
    exported = export(place)
    with place.open() as ledger, pytest.raises(LedgerError, match="has lost nothing"):
        ledger.accept_loss()
    place.sql("DELETE FROM ledger WHERE seq > 3")
    with place.open() as ledger:
        row = ledger.accept_loss()
        assert (row.seq, row.kind) == (4, LOSS)
        assert row.values["head_seq"] == 5 and row.values["found_seq"] == 3
        ledger.append(Event("pull"))
    assert problem(place) == ""
    assert problem(place, exported).startswith("5: it is not the row")


def test_a_loss_of_everything_can_be_accepted(place: Place) -> None:
    fill(place, 2)
    place.lose_database()
    (place.keys / HEAD).unlink()
    with place.open() as ledger:
        assert ledger.accept_loss().values == {"found_seq": 0, "head_hash": None, "head_seq": None}
    assert problem(place) == ""
