"""Reads the home's database without writing a byte, in it or beside it: so it works on a read-only medium, and changes no evidence.

SQLite keeps newer pages in a log beside the file while a program has it open, or after a kill. Where there is no log, the file is read
as one that nobody changes (`immutable`: no locks, no files beside it). Where there is one, it is read with the index of the log; without
that index, which SQLite would have to make beside it, a copy is read.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ingle.core.errors import HomeError
from ingle.core.files import os_errors
from ingle.home.database import BUSY_TIMEOUT_S, Migrations, is_current, open_database, open_with
from ingle.home.place import Home

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


MOST_FAULTS = 10  # most faults of a database that are named: one damaged page causes many
_BAD_WORDS = "malformed inverted index for FTS5 table"  # SQLite's words about a damaged full-text index
_CHECKS_WORDS = (3, 44)  # from this version on, SQLite's own check looks into full-text indexes, too


@contextmanager
def reading(home: Home, migrations: Mapping[str, Migrations]) -> Iterator["Engine"]:
    """Open the database to be read. One of an older Ingle is brought up to date in memory, and a missing one is an empty one.

    PostgreSQL's is opened as usual. Raises HomeError if it can't be read, was written by a newer Ingle, or changed under our eyes.
    """
    path = home.database_file
    if home.other_database:
        engine = open_database(home.database_url, migrations)
    elif not path.exists():
        engine = open_with(path, _memory, migrations, pooled=False)
    else:
        engine = open_with(path, lambda: _file(path), None) if _readable(path) else open_with(path, lambda: _copy(path), None, pooled=False)
        if not is_current(engine, migrations):
            engine.dispose()
            engine = open_with(path, lambda: _copy(path), migrations, pooled=False)
    seen = None if home.other_database else _seen(path)
    try:
        yield engine
    finally:
        engine.dispose()
    if seen is not None and seen != _seen(path):
        raise HomeError(str(path), "was changed while it was read", "", "Run it again.")


def database_faults(engine: "Engine") -> list[str]:
    """Return the faults of an SQLite file: pages, indexes, rows that refer to nothing, full-text indexes. PostgreSQL checks its own."""
    if engine.dialect.name != "sqlite":
        return []
    try:
        with engine.connect() as connection:
            checked = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_FAULTS})").scalars()
            found = [line for text in checked for line in str(text).splitlines() if line != "ok" and not line.startswith("***")]
            if not found:
                found = [f"a row of {table} refers to one of {other} that is not there" for table, other in _orphans(connection)]
        if sqlite3.sqlite_version_info < _CHECKS_WORDS and not found:
            found = _words_by_hand(engine)
    except HomeError as error:
        return [error.got or error.sentence]
    return [f"{one} (`ingle serve` makes it anew from the rows)" if one.startswith(_BAD_WORDS) else one for one in found[:MOST_FAULTS]]


def _orphans(connection: "Connection") -> list[tuple[str, str]]:
    return sorted({(str(row[0]), str(row[2])) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")})


def _words_by_hand(engine: "Engine") -> list[str]:
    """Return the faults of full-text indexes, for an older SQLite: its check is written as an insertion, so it is done in a copy."""
    copy = _memory()
    try:
        with engine.connect() as connection:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            source.backup(copy)
        for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE%fts5%'").fetchall():
            try:
                copy.execute(f"INSERT INTO {name} ({name}) VALUES ('integrity-check')")
            except sqlite3.DatabaseError:
                return [f"{_BAD_WORDS} main.{name}"]
        return []
    finally:
        copy.close()


def _file(path: Path) -> sqlite3.Connection:
    how = "readonly_shm=1" if any(map(_bytes, _beside(path))) else "immutable=1"
    uri = f"file:{quote(str(path))}?mode=ro&{how}"
    return sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, uri=True, check_same_thread=False)


def _readable(path: Path) -> bool:
    """Return whether SQLite can read the file where it lies without making another one."""
    return not any(map(_bytes, _beside(path))) or path.with_name(f"{path.name}-shm").exists()


def _copy(path: Path) -> sqlite3.Connection:
    """Return a copy in memory."""
    copy = _memory()
    with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
        place = Path(folder) / path.name
        if not _readable(path):
            with os_errors(path):
                for one in (path, *_beside(path)):
                    if one.exists():
                        shutil.copyfile(one, place.with_name(one.name))
        with closing(sqlite3.connect(place) if place.exists() else _file(path)) as source:
            source.backup(copy)
    return copy


def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("-wal", "-journal")]


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _seen(path: Path) -> tuple[int, int] | None:
    """Return by what a change of a file that is read as immutable can be told; None where the log is read too, for it tells itself."""
    if any(_bytes(beside) for beside in _beside(path)) or not path.exists():
        return None
    with os_errors(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns
