"""Memories and lessons at a terminal, where they act as in the server."""

from typing import TYPE_CHECKING

from ingle.cli.output import note
from ingle.home.kept import Kept
from ingle.home.place import Home

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.adapt.choosing import Choice, Chooser
    from ingle.core.message import Request
    from ingle.engine.language_model import LanguageModel

OWNER = ""  # owner of what is taught on this machine without a key


class TaughtHere:
    """Chooses memories and lessons for one kept model. Opens the database once it exists."""

    def __init__(self, home: Home, kept: Kept, memory: bool) -> None:
        self._home, self._kept, self._memory = home, kept, memory
        self._engine: Engine | None = None
        self._chooser: Chooser | None = None
        self._told: set[str] = set()

    def choose(self, model: "LanguageModel", request: "Request") -> "Choice":
        """Return what acts on this request. Says once which lessons can't act."""
        from ingle.adapt.choosing import Choice, Chooser
        from ingle.home.taught import anything_taught

        if self._chooser is None:
            if not anything_taught(self._home):
                return Choice(model, request)
            self._chooser = Chooser(self._home, self.engine)
        choice = self._chooser.choose(OWNER, model, self._kept, request, self._memory)
        for fault in choice.faults:
            self.tell(f"A lesson can't act: {fault}")
        return choice

    def tell(self, text: str) -> None:
        """Print a remark once."""
        if text not in self._told:
            note(text)
            self._told.add(text)

    @property
    def engine(self) -> "Engine":
        """The home's database, opened at first use. Raises HomeError."""
        if self._engine is None:
            from ingle.app.house import open_rooms

            self._engine = open_rooms(self._home)
        return self._engine

    def close(self) -> None:
        """Closes the database."""
        if self._engine is not None:
            self._engine.dispose()


def choose_once(home: Home, kept: Kept, memory: bool, model: "LanguageModel", request: "Request") -> "Choice":
    """Return what acts on one request."""
    taught = TaughtHere(home, kept, memory)
    try:
        return taught.choose(model, request)
    finally:
        taught.close()
