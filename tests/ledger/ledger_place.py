"""A ledger in a folder of its own, and the means to get at its database from outside."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from ingle.core.report import Event
from ingle.home.database import open_database
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS


@dataclass(frozen=True)
class Place:
    """Where one ledger lies."""

    folder: Path
    elsewhere: str = ""
    """URL of an empty database; "" = SQLite in this folder."""

    @property
    def url(self) -> str:
        return self.elsewhere or f"sqlite:///{self.database}"

    @property
    def database(self) -> Path:
        return self.folder / "facts.db"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    def copy_to(self, folder: Path) -> "Place":
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return Place(folder)

    @contextmanager
    def open(self) -> Iterator[Ledger]:
        engine = open_database(self.url, {"ledger": MIGRATIONS})
        try:
            yield Ledger(engine, self.keys)
        finally:
            engine.dispose()

    def sql(self, statement: str) -> None:
        engine = open_database(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    def lose_database(self) -> None:
        if self.elsewhere:
            self.sql("DROP TABLE ledger, ledger_nodes, schema_version")
        else:
            self.database.unlink()


def fill(place: Place, rows: int) -> None:
    with place.open() as ledger:
        for number in range(rows):
            ledger.append(Event(("pull", "answer", "delta.accept")[number % 3], f"model{number % 2}", {"n": number, "ok": True, "x": None}))
