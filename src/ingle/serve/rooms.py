"""Opens the home's database with all tables that the server writes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ingle.home.place import Home

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.database import Migrations


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
