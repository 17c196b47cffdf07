"""Whatever is done to the rows by someone without the key, verifying finds it, and says where it begins."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ledger_place import Place, fill

from ingle.ledger.keys import new_signer
from ingle.ledger.row import row_hash
from tests.examples import examples

ROWS = 6
COLUMNS = ("seq", "at", "kind", "subject", "facts", "prev_hash", "hash", "signature")
Table = list[tuple[Any, ...]]
Tamper = Callable[[Table], Table]


def rows_of(place: Place) -> Table:
    with sqlite3.connect(place.database) as connection:
        rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM ledger ORDER BY seq").fetchall()
    connection.close()
    return rows


def write_rows(place: Place, rows: Table) -> None:
    with sqlite3.connect(place.database) as connection:
        connection.execute("DELETE FROM ledger")
        connection.executemany(f"INSERT INTO ledger ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    connection.close()


def first_difference(before: Table, after: Table) -> int:
    old, new = {row[0]: row for row in before}, {row[0]: row for row in after}
    return min(seq for seq in old.keys() | new.keys() if old.get(seq) != new.get(seq))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("original") / "ledger")
    fill(place, ROWS)
    return place


texts = st.one_of(st.text(st.characters(codec="utf-8"), max_size=12), st.binary(max_size=4), st.integers(-9, 9), st.just(" "))


@st.composite
def edited(draw: st.DrawFn) -> Tamper:
    """One cell gets another value: anything, its neighbour's, or itself with one character changed."""
    at, column = draw(st.integers(0, ROWS - 1)), draw(st.integers(0, len(COLUMNS) - 1))
    how, value = draw(st.sampled_from(["any", "neighbour", "character", "case"])), draw(texts)
    position = draw(st.integers(0, 300))

    def tamper(rows: Table) -> Table:
        at_, old = at % len(rows), rows[at % len(rows)][column]
        if column == 0:
            new: Any = position - 100
        elif how == "neighbour":
            new = rows[(at_ + 1) % len(rows)][column]
        elif how == "character" and old:
            where = position % len(old)
            new = old[:where] + ("0" if old[where] != "0" else "1") + old[where + 1 :]
        else:
            new = old.upper() if how == "case" else value
        row = list(rows[at_])
        row[column] = new
        return [*rows[:at_], tuple(row), *rows[at_ + 1 :]]

    return tamper


@st.composite
def deleted(draw: st.DrawFn) -> Tamper:
    gone = draw(st.sets(st.integers(0, ROWS - 1), min_size=1))
    return lambda rows: [row for number, row in enumerate(rows) if number not in gone]


@st.composite
def cut(draw: st.DrawFn) -> Tamper:
    left = draw(st.integers(0, ROWS - 1))
    return lambda rows: rows[:left]


@st.composite
def swapped(draw: st.DrawFn) -> Tamper:
    one, two = draw(st.permutations(range(ROWS)))[:2]

    def tamper(rows: Table) -> Table:
        changed = list(rows)
        changed[one], changed[two] = (rows[one][0], *rows[two][1:]), (rows[two][0], *rows[one][1:])
        return changed

    return tamper


@st.composite
def inserted(draw: st.DrawFn) -> Tamper:
    """A copied or well-hashed row, with the rest moved up (hashed again too, but nobody can sign it)."""
    at, stranger = draw(st.integers(0, ROWS)), new_signer()
    own_key, copied = draw(st.booleans()), draw(st.booleans())

    def tamper(rows: Table) -> Table:
        template = rows[at % len(rows)]
        new = rows[:at]
        for old in [template if copied else (0, template[1], "answer", "forged", "{}", "", "", template[7]), *rows[at:]]:
            prev = new[-1][6] if new else rows[0][5]
            hashed = row_hash(len(new) + 1, *old[1:5], prev)
            signature = stranger.sign(bytes.fromhex(hashed)) if own_key else old[7]
            new.append((len(new) + 1, *old[1:5], prev, hashed, signature))
        return new

    return tamper


@st.composite
def rewritten(draw: st.DrawFn) -> Tamper:
    """One fact changes and every later hash is made to fit."""
    at, subject = draw(st.integers(0, ROWS - 1)), draw(st.text("abc", min_size=1, max_size=3))

    def tamper(rows: Table) -> Table:
        new = rows[:at]
        for old in rows[at:]:
            prev = new[-1][6] if new else old[5]
            body = (*old[1:3], subject if old is rows[at] else old[3], old[4])
            new.append((old[0], *body, prev, row_hash(old[0], *body, prev), old[7]))
        return new

    return tamper


@settings(examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tamper=st.one_of(edited(), edited(), deleted(), cut(), swapped(), inserted(), rewritten()))
def test_every_single_change_is_found_where_it_begins(original: Place, tmp_path: Path, tamper: Tamper) -> None:
    place = original.copy_to(tmp_path / "tampered")
    before = rows_of(place)
    try:
        write_rows(place, tamper(before))
    except (sqlite3.Error, UnicodeEncodeError):
        assume(False)  # the database itself refused it
    after = rows_of(place)
    assume(after != before)
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is not None
    assert found.problem.seq == first_difference(before, after), found.problem


@settings(examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tampers=st.lists(st.one_of(edited(), cut(), rewritten(), deleted()), min_size=2, max_size=4))
def test_several_changes_at_once_are_found(original: Place, tmp_path: Path, tampers: list[Tamper]) -> None:
    place = original.copy_to(tmp_path / "tampered")
    before = rows_of(place)
    changed = before
    try:
        for tamper in tampers:
            changed = tamper(changed) if changed else changed
        write_rows(place, changed)
    except (sqlite3.Error, UnicodeEncodeError, TypeError, ValueError, IndexError, AttributeError):
        assume(False)  # this one can't be done on top of the others
    assume(rows_of(place) != before)
    with place.open() as ledger:
        assert ledger.verify().problem is not None


def test_without_a_change_all_is_well(original: Place, tmp_path: Path) -> None:
    place = original.copy_to(tmp_path / "same")
    write_rows(place, rows_of(place))
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is None
    assert found.count == ROWS
    assert found.head is not None and found.head.seq == ROWS


def test_text_that_is_no_text_is_found_and_located(original: Place, tmp_path: Path) -> None:
    place = original.copy_to(tmp_path / "bytes")
    with sqlite3.connect(place.database) as connection:
        connection.execute("UPDATE ledger SET subject = CAST(x'ff' AS TEXT) WHERE seq = 4")
    connection.close()
    with place.open() as ledger:
        found = ledger.verify()
    assert found.problem is not None and found.problem.seq == 4 and found.count == 3
    assert "can't be read" in found.problem.what


def test_verifying_reads_in_pages(original: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.ledger.verify.PAGE_ROWS", 2)
    with original.copy_to(tmp_path / "paged").open() as ledger:
        assert ledger.verify().count == ROWS
        assert [row.seq for row in ledger.read()] == list(range(ROWS, 0, -1))
