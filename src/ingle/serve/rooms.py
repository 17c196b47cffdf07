"""Opens the home's database with all tables that the server writes."""

from typing import TYPE_CHECKING

from ingle.home.place import Home

if TYPE_CHECKING:
    from sqlalchemy import Engine


def open_rooms(home: Home) -> "Engine":
    """Return the engine, with its tables up to date. Raises HomeError."""
    from ingle.home import api_keys, examples, turns
    from ingle.home.database import open_database
    from ingle.ledger import table

    rooms = {"ledger": table.MIGRATIONS, "turns": turns.MIGRATIONS, "api_keys": api_keys.MIGRATIONS, "examples": examples.MIGRATIONS}
    return open_database(home.database_url, rooms)
