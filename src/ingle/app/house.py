"""Opens the home: its database with all tables, and its ledger."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.report import Event
from ingle.home.place import Home, find_home

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.database import Migrations
    from ingle.ledger.chain import Ledger
    from ingle.ledger.row import Row

# Opens the home and its ledger, for most commands.


def enter() -> Home:
    """Return this user's home. Compiled kernels are kept in it, unless the environment says otherwise."""
    home = find_home()
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(home.jit))
    return home


@contextmanager
def open_ledger(home: Home) -> Iterator["Ledger"]:
    """Open the home's ledger. Its imports take a quarter of a second, so not before an answer."""
    from ingle.home.database import open_database
    from ingle.ledger.chain import Ledger
    from ingle.ledger.table import MIGRATIONS

    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        yield Ledger(engine, home.keys)
    finally:
        engine.dispose()


def check_ledger(url: str, keys: Path) -> int:
    """Verify the ledger in the database at `url` with this folder of keys, private key included, and return the number of its facts.

    Raises LedgerError at the first thing that is not as it was signed.
    """
    from ingle.core.errors import LedgerError
    from ingle.home.database import open_database
    from ingle.ledger.chain import Ledger
    from ingle.ledger.table import MIGRATIONS

    engine = open_database(url, {"ledger": MIGRATIONS})
    try:
        ledger = Ledger(engine, keys)
        result = ledger.verify()
        if result.problem is not None:
            where = f"fact {result.problem.seq}" if result.problem.seq else "the ledger"
            raise LedgerError("ledger", "must be as it was signed", f"{where}: {result.problem.what}", "`ingle verify` says more.")
        ledger.check_key()
    finally:
        engine.dispose()
    return result.count


def record(home: Home, *events: Event) -> "list[Row]":
    """Add facts to the ledger, and return them."""
    with open_ledger(home) as ledger:
        return [ledger.append(event) for event in events]


# Opens the home's database with all tables that the server writes.


def open_rooms(home: Home) -> "Engine":
    """Return the engine, with its tables up to date. Raises HomeError."""
    from ingle.home.database import open_database

    return open_database(home.database_url, rooms())


def rooms() -> "Mapping[str, Migrations]":
    """Return the migrations of all tables that the server writes."""
    from ingle.home import api_keys, asked_once, examples, sign_outs, turns
    from ingle.ledger import table

    named = {
        "ledger": table, "turns": turns, "api_keys": api_keys, "examples": examples, "sign_outs": sign_outs, "asked_once": asked_once,
    }  # fmt: skip
    return {name: room.MIGRATIONS for name, room in named.items()}
