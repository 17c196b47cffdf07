"""The ledger's table: its migrations, and the reading and writing of its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from ingle.ledger.row import Row

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Select, Table

# (number, statements), oldest first.
MIGRATIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        1,
        (
            """
            CREATE TABLE ledger (
                seq INTEGER NOT NULL PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
                facts TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL, signature TEXT NOT NULL
            )""",
            "CREATE INDEX ledger_subject ON ledger (subject, seq)",
        ),
    ),
    # Complete subtrees of the tree over the rows; see ledger/nodes.py.
    (2, ("CREATE TABLE ledger_nodes (level INTEGER NOT NULL, number INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (level, number))",)),
)

# Rows read at once. A long read goes by pages of row numbers, so it holds no transaction open and little memory.
PAGE_ROWS = 500


@cache
def ledger_table() -> "Table":
    """Return SQLAlchemy's description of the table; made at first use, because importing SQLAlchemy is slow."""
    import sqlalchemy as sa

    texts = [sa.Column(name, sa.Text) for name in ("at", "kind", "subject", "facts", "prev_hash", "hash", "signature")]
    return sa.Table("ledger", sa.MetaData(), sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False), *texts)


@contextmanager
def appending(engine: "Engine") -> Iterator["Connection"]:
    """Open a transaction in which nobody else can append: what it reads is still true when it commits."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql("LOCK TABLE ledger IN EXCLUSIVE MODE")
        yield connection


def last_row(connection: "Connection") -> Row | None:
    """Return the newest row, or None."""
    rows = read_rows(connection, _select().order_by(ledger_table().c.seq.desc()).limit(1))
    return rows[0] if rows else None


def insert_row(connection: "Connection", row: Row) -> None:
    """Insert a row."""
    values = asdict(row)
    values["prev_hash"] = values.pop("prev")
    connection.execute(ledger_table().insert().values(values))


def touch(connection: "Connection") -> None:
    """Write something that nobody reads, to find out whether anything can be written."""
    import sqlalchemy as sa

    written = "INSERT INTO schema_version (room, number, at) VALUES ('touch', 0, :at) ON CONFLICT (room, number) DO UPDATE SET at = :at"
    connection.execute(sa.text(written), {"at": datetime.now(UTC).isoformat()})


def rows_from(connection: "Connection", after: int | None, limit: int = PAGE_ROWS) -> list[Row]:
    """Return up to `limit` rows after number `after` (None = from the first), in order."""
    table = ledger_table()
    query = _select().order_by(table.c.seq).limit(limit)
    return read_rows(connection, query if after is None else query.where(table.c.seq > after))


def newest_rows(connection: "Connection", kind: str | None, subject: str | None, before: int | None, limit: int) -> list[Row]:
    """Return up to `limit` matching rows before number `before`, the newest first."""
    table = ledger_table()
    query = _select().order_by(table.c.seq.desc()).limit(limit)
    if kind is not None:
        # A kind also means everything below it: `delta` finds `delta.accept`.
        query = query.where((table.c.kind == kind) | table.c.kind.startswith(f"{kind}.", autoescape=True))
    if subject is not None:
        query = query.where(table.c.subject == subject)
    return read_rows(connection, query if before is None else query.where(table.c.seq < before))


def counts_by_kind(engine: "Engine") -> dict[str, int]:
    """Return how many facts there are of each kind."""
    import sqlalchemy as sa

    table = ledger_table()
    with engine.connect() as connection:
        rows = connection.execute(sa.select(table.c.kind, sa.func.count()).group_by(table.c.kind))
        return {str(kind): int(count) for kind, count in rows}


def read_rows(connection: "Connection", query: "Select[Any]") -> list[Row]:
    """Return the rows of a query; not checked, because a database may hold anything."""
    return [Row(*cast("tuple[Any, ...]", values)) for values in connection.execute(query)]


def _select() -> "Select[Any]":
    import sqlalchemy as sa

    return sa.select(*ledger_table().c)
