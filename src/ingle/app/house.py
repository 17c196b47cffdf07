"""Opens the home: its database with all tables, and its ledger."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from ingle.core.progress import SILENT, Watcher
from ingle.core.report import Event
from ingle.home.place import Home, find_home

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.app.conversation import Held
    from ingle.home.database import Migrations
    from ingle.home.kept import Kept
    from ingle.learn.learner import LessonOutcome
    from ingle.learn.learning_settings import LearnSettings
    from ingle.ledger.chain import Ledger
    from ingle.ledger.row import Row


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


@dataclass(eq=False)
class House:
    """The home, as whoever asks may use it. `close` lets the database go, if it was opened here; later use opens it again."""

    home: Home
    owner: str = ""  # id of the API key that asks; "" = somebody on this machine without one
    kept: "Callable[[str], Kept] | None" = None  # finds a model by its name; None = as `app.choose.choose` does
    sink: "Callable[[Event], Row] | None" = None  # writes a fact that would then survive a power cut; None = straight into the ledger
    changed: Callable[[], object] = lambda: None  # called when what was taught acts otherwise than before
    forget_states: Callable[..., None] = lambda *_: None  # drops an owner's states from memory; with a conversation's id, those of it
    per_hour: int = 0  # examples that one owner may teach in an hour; 0 = no limit: whoever sits here floods nobody but themselves
    learning: "LearnSettings | None" = None  # how the learner beside learns; None where none runs
    learn_now: "Callable[[bool], Sequence[LessonOutcome]] | None" = None  # lets the weights learn what is pending, or all of it anew
    watch: Watcher = SILENT  # hears how far long work is, and remarks on it
    sees_all: bool = True  # whether figures about everybody's requests are for whoever asks
    guards: bool = True  # whether who asks may teach and set the guards
    held: "Held | None" = None  # what a running server holds of conversations in memory
    at_machine: bool = True  # whether who asks sits at the machine: sees all, and may shorten ids
    lent: "Engine | None" = None  # the database of whoever opened it already
    _opened: "Engine | None" = field(default=None, init=False)
    _lock: RLock = field(default_factory=RLock, init=False)

    @property
    def engine(self) -> "Engine":
        """The home's database. Raises HomeError. Thread-safe."""
        if self.lent is not None:
            return self.lent
        with self._lock:
            if self._opened is None:
                self._opened = open_rooms(self.home)
            return self._opened

    def close(self) -> None:
        """Let the database go."""
        with self._lock:
            if self._opened is not None:
                self._opened.dispose()
                self._opened = None

    def record(self, event: Event) -> "Row":
        """Write a fact, and return it. When this returns, it would survive a power cut."""
        from ingle.ledger.chain import Ledger

        return Ledger(self.engine, self.home.keys).append(event) if self.sink is None else self.sink(event)

    def model(self, name: str) -> "Kept":
        """Return a model by its name; "" = the default."""
        from ingle.app.choose import choose

        return choose(self.home, name) if self.kept is None else self.kept(name)
