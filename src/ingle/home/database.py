"""The home's database: SQLAlchemy Core over SQLite (or PostgreSQL, by URL), and numbered migrations from each room.

Whatever the database refuses (locked, disk full, not a database, read-only) is raised as HomeError with a cure, also from
statements that other rooms send through this engine; text that no database can hold is a RequestError.
"""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.digest import digest_bytes, plain_json
from ingle.core.errors import DamagedError, HomeError, RequestError
from ingle.core.files import how_to_install, os_errors
from ingle.core.progress import Counted, silent

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine, ExceptionContext

Statement = str | Mapping[str, str]  # SQL for both SQLite and PostgreSQL, or for each by its name ("" = nothing to do)
Migrations = Sequence[tuple[int, Sequence[Statement]]]  # a room's history, oldest first: (number counting from 1, statements)

BUSY_TIMEOUT_S = 10  # seconds that a statement waits for another program's lock
SCRUB_TIMEOUT_S = 2  # seconds that `scrub` waits for other connections
_STEP_PAGES = 2_000  # pages that `snapshot` copies between two looks at Ctrl-C: a hundredth of a second or so
_POSTGRES = re.compile(r"postgres(ql)?://")
_SQLITE = "sqlite:///"
_LEFT = "`ingle verify` says what is left of it. Restore it from a backup."
# SQLite's words about a file that holds what was never written, and the cures.
_DAMAGES = {
    "not a database": "Move the file away or restore it from a backup; a new one is made where there is none.",
    "malformed": _LEFT,
    "vtable constructor failed": _LEFT,
    "invalid fts5": _LEFT,
    "sql logic error": _LEFT,
    "no such table": _LEFT,
    "no such column": _LEFT,
    "already exists": _LEFT,
}
_CURES = {
    "locked": "Another process is writing for a long time; wait for it, or end it.",
    "lock timeout": "Another process is writing for a long time; wait for it, or end it.",
    "full": "Free some disk space and try again; nothing already kept was touched.",
    "no space left": "Free some disk space and try again; nothing already kept was touched.",
    "readonly": "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
    "unable to open": "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
    "disk i/o": "The disk could not be read or written; check it and its free space.",
    "no such module": "This Python's SQLite has no full-text search (FTS5); use another Python, or PostgreSQL.",
    "connect": "Check that the server runs and that INGLE_DATABASE_URL is right.",
}


def open_database(url: str, migrations: Mapping[str, Migrations] | None = None) -> "Engine":
    """Open the database at `url` and bring each room's tables up to date.

    `url` is `Home.database_url`: `sqlite:///` and a file path (query options are ignored, Ingle sets its own), `postgresql://` as its own
    tools write it, or any other URL that SQLAlchemy takes. Raises HomeError if it can't be opened, or was written by a newer Ingle.
    """
    import sqlalchemy as sa

    try:
        if url.startswith(_SQLITE):
            path = Path(url.removeprefix(_SQLITE))
            with os_errors(path.parent):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made here, it is for its owner alone, and so is what SQLite puts beside it. One that is there is not even opened: closing it
            # would take from this process the locks that SQLite holds on it.
            with suppress(OSError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            target = sa.URL.create("sqlite", database=str(path))
            engine = sa.create_engine(target, connect_args={"timeout": BUSY_TIMEOUT_S})
            sa.event.listen(engine, "connect", _prepare_sqlite)
        else:
            # Without a driver's name SQLAlchemy would look for psycopg2, the older one.
            engine = sa.create_engine(_POSTGRES.sub("postgresql+psycopg://", url, count=1), pool_pre_ping=True)
            if engine.dialect.name == "postgresql":
                sa.event.listen(engine, "connect", _prepare_postgres)
    except (sa.exc.ArgumentError, ImportError) as error:
        cure = how_to_install("postgres") if _POSTGRES.match(url) and isinstance(error, ImportError) else ""
        raise HomeError("INGLE_DATABASE_URL", "must name a database whose driver is installed", error, cure) from error
    return _opened(engine, migrations or {})


def open_with(
    path: Path, connect: Callable[[], sqlite3.Connection], migrations: Mapping[str, Migrations] | None, pooled: bool = True
) -> "Engine":  # fmt: skip
    """Open SQLite by connections of one's own making, for the file at `path`. `migrations`: None = its tables are taken as they are.
    `pooled`: as many connections as are asked for, else one for all.

    Raises as `open_database` does.
    """
    import sqlalchemy as sa

    target, pool = sa.URL.create("sqlite", database=str(path)), sa.pool.QueuePool if pooled else sa.pool.StaticPool
    return _opened(sa.create_engine(target, creator=connect, poolclass=pool), migrations)


def _opened(engine: "Engine", migrations: Mapping[str, Migrations] | None) -> "Engine":
    import sqlalchemy as sa

    sa.event.listen(engine, "handle_error", _translate)
    try:
        if migrations is not None:
            _migrate(engine, migrations)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: "Engine") -> Iterator["Connection"]:
    """Open a transaction that writes: it commits at the end of the block and rolls back on any error.

    SQLite's write lock is taken at the start, because two readers that both want to write next would refuse each other.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def writing_for(engine: "Engine", owner: str) -> Iterator["Connection"]:
    """Open a transaction that writes while nobody else writes for this owner: a turn can't be deleted while another is attached to it."""
    import sqlalchemy as sa

    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            number = int(digest_bytes(f"ingle.owner {owner}".encode(errors="replace"))[:15], 16)
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        yield connection


def now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Turn any error of reading a stored value into a DamagedError: Ingle never writes what it can't read."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedError(what, "can't be read", type(error).__name__, f"The database is damaged: {_LEFT}") from error


def is_in_file(url: str) -> bool:
    """Return whether the database at `url` is a file of SQLite."""
    return url.startswith(_SQLITE)


def json_text(field: str, value: object) -> str:
    """Return JSON text with keys in their order. Raises RequestError for NaN, lone surrogates and other Python objects."""
    try:
        return plain_json(value).decode()
    except (ValueError, TypeError) as error:
        raise RequestError(field, "must be finite numbers and whole Unicode characters", error) from error


def scrub(engine: "Engine") -> bool:
    """Remove deleted text from all of the database's files. Returns whether that succeeded.

    SQLite's `secure_delete` overwrites deleted rows, but not copies left by earlier moves between pages, nor the pages in the write-ahead
    log. So the file is rewritten and the log is truncated. That takes as long as copying the file (through an unnamed one in
    SQLITE_TMPDIR), and other writers wait. False if others kept the database busy or the disk is full; the next call makes up for it.
    PostgreSQL's files belong to its administrator: always False.
    """
    if engine.dialect.name != "sqlite":
        return False
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(SCRUB_TIMEOUT_S * 1000)}")
            try:
                # Once before too: what can't be written anew for want of room is then at least overwritten.
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.exec_driver_sql("VACUUM")
                still_read, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    except HomeError:
        return False
    return not still_read


def snapshot(url: str, target: Path, progress: Counted = silent) -> None:
    """Copy an SQLite database as it is at one moment to a new file, while others go on reading and writing. `progress`: bytes, of all.

    Raises HomeError if it can't be read or written, or is damaged.
    """
    path = Path(url.removeprefix(_SQLITE))
    with os_errors(target):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", BUSY_TIMEOUT_S, isolation_level=None, uri=True)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # In one reading transaction: otherwise the copy begins anew whenever another process writes, which may be for ever.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            page = source.execute("PRAGMA page_size").fetchone()[0]
            source.backup(copy, pages=_STEP_PAGES, progress=lambda _status, left, total: progress((total - left) * page, total * page))
            source.execute("ROLLBACK")
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        cure = next((cure for sign, cure in _CURES.items() if sign in found.lower()), "It is damaged; restore it from a backup.")
        raise HomeError(str(path), "The database must be readable and whole", found, cure)


def _prepare_postgres(connection: "psycopg.Connection", _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_S}s'")  # its own default is to wait for ever
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # Zeros over what is deleted: a user's words must not stay in the file. See also `scrub`.
    connection.execute("PRAGMA secure_delete = ON")
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
    if context.is_pre_ping:
        return  # a connection that has died in the pool is about to be replaced by a new one
    original = context.original_exception
    text = str(original).strip()
    lower = text.lower()
    if isinstance(original, UnicodeEncodeError) or "cannot contain nul" in lower:
        raise RequestError("text", "must be whole Unicode characters other than NUL", text) from original
    if "unique constraint" in lower:
        return  # names the value, which may hold any of the words below
    where = str(context.engine.url.render_as_string(hide_password=True)) if context.engine else "database"
    undecodable = isinstance(original, UnicodeDecodeError) or "could not decode" in lower
    if undecodable:
        text = "a text that is not UTF-8"  # SQLite's own sentence holds the text
    for sign, cure in _CURES.items():
        if sign in lower:
            raise HomeError(where, "The database must be readable and writable", text, cure) from original
    cure = next((cure for sign, cure in _DAMAGES.items() if sign in lower), "")
    # The plain class of errors is about the file, its subclasses are about the statement.
    if cure or undecodable or type(original) is sqlite3.DatabaseError:
        raise DamagedError(where, "The database is damaged", text, cure or _LEFT) from original


def is_current(engine: "Engine", migrations: Mapping[str, Migrations]) -> bool:
    """Return whether each room's tables are up to date. Raises HomeError if a newer Ingle wrote them."""
    import sqlalchemy as sa

    for room, steps in migrations.items():
        assert [number for number, _ in steps] == list(range(1, len(steps) + 1)), f"{room}: migrations count from 1"
    with engine.connect() as connection:
        has_versions = sa.inspect(connection).has_table("schema_version")
        done = _versions(connection) if has_versions else {}
    for room, steps in migrations.items():
        if done.get(room, 0) > len(steps):
            cure = "Update Ingle; this version would not understand its tables."
            raise HomeError(f"database, {room}", f"must be at version {len(steps)} at most", done[room], cure)
    return has_versions and all(done.get(room, 0) == len(steps) for room, steps in migrations.items())


def _migrate(engine: "Engine", migrations: Mapping[str, Migrations]) -> None:
    import sqlalchemy as sa

    if is_current(engine, migrations):
        return
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(1229866060)"))  # any number that only Ingle uses
        connection.execute(sa.text(_SCHEMA_VERSION))
        done = _versions(connection)  # again, now that nobody else can migrate
        for room, steps in migrations.items():
            for number, statements in steps[done.get(room, 0) :]:
                for statement in statements:
                    if words := statement if isinstance(statement, str) else statement[engine.dialect.name]:
                        connection.execute(sa.text(words))
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
