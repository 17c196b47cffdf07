"""The home's database: SQLAlchemy Core over SQLite (PostgreSQL by URL), and numbered migrations that each room hands in.

Whatever the database refuses (locked, disk full, not a database, read-only) is raised as HomeError with a cure, also from
statements that other rooms send through this engine.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.errors import HomeError
from ingle.core.files import os_errors

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, ExceptionContext

Migrations = Sequence[tuple[int, Sequence[str]]]
"""A room's history, oldest first: (number counting from 1, SQL statements that SQLite and PostgreSQL both take)."""

BUSY_TIMEOUT_S = 10
_SQLITE = "sqlite:///"
_CURES = {
    "locked": "Another process is writing for a long time; wait for it, or end it.",
    "full": "Free some disk space and try again; nothing already kept was touched.",
    "not a database": "Move the file away or restore it from a backup; a new one is made where there is none.",
    "malformed": "The file is damaged; restore it from a backup.",
    "readonly": "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
    "unable to open": "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
    "disk i/o": "The disk could not be read or written; check it and its free space.",
    "connect": "Check that the server runs and that INGLE_DATABASE_URL is right.",
}


def open_database(url: str, migrations: Mapping[str, Migrations] | None = None) -> "Engine":
    """The engine for `url`, with each room's tables brought up to date.

    `url` is `Home.database_url`: `sqlite:///` and a file path (query options aren't read, Ingle sets its own), or any other
    URL that SQLAlchemy takes. Raises HomeError if it can't be opened, or was written by a newer Ingle.
    """
    import sqlalchemy as sa

    try:
        if url.startswith(_SQLITE):
            path = Path(url.removeprefix(_SQLITE))
            with os_errors(path.parent):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = sa.URL.create("sqlite", database=str(path))
            engine = sa.create_engine(target, connect_args={"timeout": BUSY_TIMEOUT_S})
            sa.event.listen(engine, "connect", _prepare_sqlite)
        else:
            engine = sa.create_engine(url, pool_pre_ping=True)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise HomeError("INGLE_DATABASE_URL", "must name a database whose driver is installed", error) from error
    sa.event.listen(engine, "handle_error", _translate)
    try:
        _migrate(engine, migrations or {})
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: "Engine") -> Iterator["Connection"]:
    """One transaction that writes: commits at the end of the block, rolls back on any error.

    SQLite's write lock is taken at the start, because two readers that both want to write next would refuse each other.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL, because a fact that was confirmed must survive a power cut; in WAL this costs one fsync per commit.
    connection.execute("PRAGMA synchronous = FULL")
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Two processes that make the file at once: changing the mode doesn't wait for the busy timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _translate(context: "ExceptionContext") -> None:
    original = context.original_exception
    text = str(original).strip()
    lower = text.lower()
    where = str(context.engine.url.render_as_string(hide_password=True)) if context.engine else "database"
    for sign, cure in _CURES.items():
        if sign in lower:
            raise HomeError(where, "the database must be readable and writable", text, cure) from original


def _migrate(engine: "Engine", migrations: Mapping[str, Migrations]) -> None:
    import sqlalchemy as sa

    for room, steps in migrations.items():
        assert [number for number, _ in steps] == list(range(1, len(steps) + 1)), f"{room}: migrations count from 1"
    with engine.connect() as connection:
        known = sa.inspect(connection).has_table("schema_version")
        done = _versions(connection) if known else {}
    for room, steps in migrations.items():
        if done.get(room, 0) > len(steps):
            cure = "Update Ingle; this version would not understand its tables."
            raise HomeError(f"database, {room}", f"must be at version {len(steps)} at most", done[room], cure)
    if known and all(done.get(room, 0) == len(steps) for room, steps in migrations.items()):
        return
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(1229866060)"))  # any number that only Ingle uses
        connection.execute(sa.text(_SCHEMA_VERSION))
        done = _versions(connection)  # again, now that nobody else can migrate
        for room, steps in migrations.items():
            for number, statements in steps[done.get(room, 0) :]:
                for statement in statements:
                    connection.execute(sa.text(statement))
                row = {"room": room, "number": number, "at": datetime.now(UTC).isoformat(timespec="seconds")}
                connection.execute(sa.text("INSERT INTO schema_version (room, number, at) VALUES (:room, :number, :at)"), row)


_SCHEMA_VERSION = """
CREATE TABLE IF NOT EXISTS schema_version (
    room VARCHAR(64) NOT NULL, number INTEGER NOT NULL, at VARCHAR(40) NOT NULL, PRIMARY KEY (room, number)
)"""


def _versions(connection: "Connection") -> dict[str, int]:
    import sqlalchemy as sa

    rows = connection.execute(sa.text("SELECT room, MAX(number) FROM schema_version GROUP BY room"))
    return {str(room): int(number) for room, number in rows}
