"""The ledger day by day: events in, facts out, keys that are lost or exposed, processes that are many or killed."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest
from ledger_place import Place, fill

from ingle.core.errors import HomeError, LedgerError
from ingle.core.report import Event, Fact, Sink
from ingle.home.database import open_database
from ingle.ledger.chain import Ledger
from ingle.ledger.head import sign_head, start_head
from ingle.ledger.keys import KEY, PUBLIC, KeyRing, new_signer, save_ring
from ingle.ledger.table import MIGRATIONS
from tests.waiting import for_a_while

posix = pytest.mark.skipif(os.name == "nt", reason="forks and modes of POSIX")


def test_events_become_facts(place: Place) -> None:
    with place.open() as ledger:
        sink: Sink = ledger.append
        sink(Event("pull", "smollm2", {"bytes": 3, "digest": "ab" * 32, "share": 0.5, "again": False, "note": None}))
        ledger.append(Event("delta.accept", "smollm2"))
        ledger.append(Event("deltas", "other"))
        rows = list(ledger.read())
        assert [row.seq for row in rows] == [3, 2, 1]
        assert rows[-1].values == {"bytes": 3, "digest": "ab" * 32, "share": 0.5, "again": False, "note": None}
        assert rows[-1].at.endswith("+00:00")
        assert [row.seq for row in ledger.read(kind="delta")] == [2]
        assert [row.seq for row in ledger.read(subject="smollm2")] == [2, 1]
        assert [row.seq for row in ledger.read(last=2)] == [3, 2]
        assert list(ledger.read(last=0)) == []


@pytest.mark.parametrize(
    "event",
    [
        Event("Pull"),
        Event(""),
        Event("pull", "x" * 257),
        Event("pull", "two\nlines"),
        Event("pull", "", {"text": "x" * 257}),
        Event("pull", "", {"text": "nul\0"}),
        Event("pull", "", {"text": "\ud800"}),
        Event("pull", "", {"a": float("nan")}),
        Event("pull", "", {"a": float("inf")}),
        Event("pull", "", {"a": ["words"]}),  # type: ignore[dict-item]
        Event("pull", "", {"a": {"deep": 1}}),  # type: ignore[dict-item]
        Event("pull", "", {"a": b"bytes"}),  # type: ignore[dict-item]
        Event("pull", "", {"a key with spaces": 1}),
        Event("pull", "", {f"k{n}": n for n in range(65)}),
    ],
)
def test_an_event_holds_short_flat_facts_only(place: Place, event: Event) -> None:
    with place.open() as ledger:
        with pytest.raises(LedgerError, match="event"):
            ledger.append(event)
        assert list(ledger.read()) == []


def test_the_longest_allowed_text_and_any_script(place: Place) -> None:
    facts: dict[str, Fact] = {"text": "é" * 256, "big": 2**70, "small": -1e-300}
    with place.open() as ledger:
        ledger.append(Event("pull", "模型", facts))
        assert next(ledger.read()).values == facts
        assert ledger.verify().problem is None


@posix
def test_the_key_is_for_its_owner_alone(place: Place) -> None:
    fill(place, 1)
    key = place.keys / KEY
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with place.open() as ledger:
        with pytest.raises(LedgerError, match=r"mode 640.*chmod 600"):
            ledger.append(Event("pull"))
        assert ledger.verify().problem is None  # verifying needs the public key only
        key.chmod(0o600)
        assert ledger.append(Event("pull")).seq == 2


def test_a_lost_key_is_said_and_the_past_still_verifies(place: Place) -> None:
    fill(place, 2)
    (place.keys / KEY).unlink()
    with place.open() as ledger:
        for call in (lambda: ledger.append(Event("pull")), ledger.accept_loss):
            with pytest.raises(LedgerError, match=r"Restore it from a backup.*To begin a new chain, move the database"):
                call()
        found = ledger.verify()
        assert found.count == 2 and found.problem is None
    (place.keys / PUBLIC).unlink()
    with place.open() as ledger:
        with pytest.raises(LedgerError, match="Restore it from a backup"):
            ledger.append(Event("pull"))
        with pytest.raises(LedgerError, match="must hold the public key"):
            ledger.verify()


def test_no_new_key_is_made_over_a_head(place: Place) -> None:
    fill(place, 2)
    place.lose_database()
    for name in (KEY, PUBLIC):
        (place.keys / name).unlink()
    with place.open() as ledger, pytest.raises(LedgerError, match="facts signed with it exist"):
        ledger.append(Event("pull"))


def test_a_swapped_or_damaged_key_is_refused(place: Place) -> None:
    fill(place, 1)
    (place.keys / KEY).write_text(new_signer().key.private_bytes_raw().hex())
    with place.open() as ledger, pytest.raises(LedgerError, match="was swapped"):
        ledger.append(Event("pull"))
    (place.keys / KEY).write_text("not a key")
    with place.open() as ledger, pytest.raises(LedgerError, match="64 hex digits"):
        ledger.append(Event("pull"))
    (place.keys / PUBLIC).write_text("zz")
    with place.open() as ledger, pytest.raises(LedgerError, match="delete it"):
        ledger.verify()


def test_a_lost_public_key_is_made_anew(place: Place) -> None:
    fill(place, 1)
    (place.keys / PUBLIC).unlink()
    with place.open() as ledger:
        assert ledger.verify().problem is None
        assert not (place.keys / PUBLIC).exists(), "verifying writes nothing"
        ledger.append(Event("pull"))
    assert (place.keys / PUBLIC).exists()


@pytest.mark.parametrize("with_public", [False, True])
def test_making_the_key_can_be_interrupted_anywhere(place: Place, with_public: bool) -> None:
    signer = new_signer()
    start_head(place.keys, sign_head(signer, 0, signer.verifier.fingerprint))
    if with_public:
        save_ring(place.keys, KeyRing((signer.verifier,), (signer,)))
        (place.keys / KEY).unlink()
    with place.open() as ledger:
        assert ledger.append(Event("pull")).seq == 1
        assert ledger.verify().problem is None


def test_an_empty_ledger_is_sound(place: Place) -> None:
    with place.open() as ledger:
        assert ledger.verify().count == 0
        assert ledger.head() is None
        assert list(ledger.read()) == []


def append_in_child(place: Place, count: int, acknowledge: int | None = None) -> int:
    """Forks a process that appends; it writes a byte for every append that has returned."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        with place.open() as ledger:
            for number in range(count):
                ledger.append(Event("answer", "m", {"n": number, "pid": os.getpid()}))
                if acknowledge is not None:
                    os.write(acknowledge, b".")
        status = 0
    finally:
        os._exit(status)


@posix
def test_two_processes_at_once_make_one_chain(place: Place) -> None:
    # Both also race to make the database, the tables and the key.
    pids = [append_in_child(place, 40) for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    with place.open() as ledger:
        found = ledger.verify()
        assert found.problem is None
        assert found.count == 120
        assert found.head is not None and found.head.seq == 120
        for pid in pids:
            assert sorted(row.values["n"] for row in ledger.read() if row.values["pid"] == pid) == list(range(40))  # type: ignore[type-var]


@pytest.mark.journey
@posix
def test_killing_an_appender_at_any_moment_loses_nothing_that_was_confirmed(place: Place) -> None:
    confirmed = 0
    for round_ in range(25):
        reading, writing = os.pipe()
        pid = append_in_child(place, 10_000, writing)
        os.close(writing)
        if round_ % 5:
            assert os.read(reading, 1) == b"."
            confirmed += 1
        for_a_while(0.0037 * (round_ % 7))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while rest := os.read(reading, 65536):
            confirmed += len(rest)
        os.close(reading)
        with place.open() as ledger:
            found = ledger.verify()
        assert found.problem is None, f"round {round_}: {found.problem}"
        assert confirmed <= found.count <= confirmed + round_ + 1
    assert confirmed >= 20
    fill(place, 1)


def test_a_database_that_stays_locked_is_said(file_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(file_place, 1)
    monkeypatch.setattr("ingle.home.database.BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(file_place.database)
    other.execute("BEGIN IMMEDIATE")
    with file_place.open() as ledger:
        with pytest.raises(HomeError, match=r"locked.*Another process"):
            ledger.append(Event("pull"))
        other.rollback()
        other.close()
        assert ledger.append(Event("pull")).seq == 2


def test_a_full_disk_is_said_and_the_chain_stays_sound(small_disk: Path) -> None:
    place = Place(small_disk / "ledger")
    fill(place, 1)
    ballast = small_disk / "ballast"
    with place.open() as ledger:
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(HomeError, match="Free some disk space"):
            for number in range(10_000):
                ledger.append(Event("answer", "m", {"n": number, "filler": "x" * 256}))
        ballast.unlink()
        before = ledger.verify()
        assert before.problem is None
        assert ledger.append(Event("pull")).seq == before.count + 1
        assert ledger.verify().problem is None


def test_a_database_that_may_not_grow_is_said_and_the_chain_stays_sound(file_place: Place) -> None:
    fill(file_place, 1)
    engine = open_database(f"sqlite:///{file_place.database}", {"ledger": MIGRATIONS})
    ledger = Ledger(engine, file_place.keys)
    with engine.connect() as connection:  # the pool gives this same connection to the ledger
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(HomeError, match="Free some disk space"):
        for number in range(1000):
            ledger.append(Event("answer", "m", {"n": number, "filler": "x" * 256}))
    assert ledger.verify().problem is None
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    ledger.append(Event("pull"))
    assert ledger.verify().problem is None
    engine.dispose()
