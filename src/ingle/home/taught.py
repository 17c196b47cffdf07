"""A quick check whether anybody has taught anything here. It runs before every answer at a terminal, so it avoids the quarter of a second
of importing the database."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ingle.home.place import Home

_SQLITE = "sqlite:///"
_ANY = "SELECT EXISTS (SELECT 1 FROM examples) OR EXISTS (SELECT 1 FROM lessons)"


def anything_taught(home: Home) -> bool:
    """Return False where there is surely no example and no lesson, of any owner; True where there may be one."""
    url = home.database_url
    if not url.startswith(_SQLITE):
        return True
    path = Path(url.removeprefix(_SQLITE))
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute(_ANY).fetchone()[0])
    except sqlite3.Error as error:
        return "no such table" not in str(error)  # whoever opens it next says what is wrong
