"""Sign-ins of the page that were ended early. They are in the database, so that they have ended for every server on it, at once."""

import time
from typing import TYPE_CHECKING

from ingle.home.database import Migrations, writing

if TYPE_CHECKING:
    from sqlalchemy import Engine

# The room "sign_outs": (number, statements), oldest first.
MIGRATIONS: Migrations = ((1, ("CREATE TABLE sign_outs (sign_in TEXT NOT NULL PRIMARY KEY, until BIGINT NOT NULL)",)),)


def sign_out(engine: "Engine", sign_in: str, until: int) -> None:
    """End a sign-in that would have lasted `until` (Unix time, s). It is forgotten when it would have ended by itself."""
    import sqlalchemy as sa

    insert = "INSERT INTO sign_outs (sign_in, until) VALUES (:sign_in, :until) ON CONFLICT DO NOTHING"
    with writing(engine) as connection:
        connection.execute(sa.text("DELETE FROM sign_outs WHERE until <= :now"), {"now": int(time.time())})
        connection.execute(sa.text(insert), {"sign_in": sign_in, "until": until})


def signed_out(engine: "Engine", sign_in: str) -> bool:
    """Return whether a sign-in was ended. Reads the database each time, so that it is out at once, whichever server ended it."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT 1 FROM sign_outs WHERE sign_in = :it"), {"it": sign_in}).first() is not None
