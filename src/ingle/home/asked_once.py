"""Questions that the page asks the owner of a home once. They are in the database, so that no browser and no server asks again."""

from typing import TYPE_CHECKING

from ingle.home.database import Migrations, now, writing

if TYPE_CHECKING:
    from sqlalchemy import Engine

# The room "asked_once": (number, statements), oldest first.
MIGRATIONS: Migrations = ((1, ("CREATE TABLE asked_once (question TEXT NOT NULL PRIMARY KEY, at TEXT NOT NULL)",)),)


def was_asked(engine: "Engine", question: str) -> bool:
    """Return whether a question was answered, or sent away."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT 1 FROM asked_once WHERE question = :it"), {"it": question}).first() is not None


def never_again(engine: "Engine", question: str) -> None:
    """Remember that a question need not be asked any more."""
    import sqlalchemy as sa

    insert = "INSERT INTO asked_once (question, at) VALUES (:question, :at) ON CONFLICT DO NOTHING"
    with writing(engine) as connection:
        connection.execute(sa.text(insert), {"question": question, "at": now()})
