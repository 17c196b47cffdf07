"""Names of models in a home, and taking models away."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from ingle.app.house import House
from ingle.app.operation import About, Confirm, Said, operation
from ingle.core.errors import HomeError, RequestError, size
from ingle.core.report import Event, Fact
from ingle.home.kept import get_kept, keep, list_kept, remove
from ingle.home.parts import list_parts, remove_part
from ingle.home.place import Home
from ingle.home.taught import anything_taught
from ingle.learn.learner import LOCK
from ingle.learn.work import put_right
from ingle.ledger.chain import Ledger


@dataclass(frozen=True, slots=True)
class Naming:
    """A model, and a name for it."""

    model: Annotated[str, About("A model, with or without deltas.", "MODEL+DELTA", placed=True)]
    words: Annotated[str, About("What to call it.", "as NAME", placed=True, many=True)] = ""
    name: Annotated[str, About("What to call it, as an option.", "NAME", also=("--as",))] = ""


@dataclass(frozen=True, slots=True)
class NamedTold:
    """A name that stands for a model with its deltas."""

    name: str
    of: str
    base: str
    deltas: tuple[str, ...]


@operation("keep", right="owner", says=lambda new: (f"{new.name} is {new.of}.", f"Talk with it: ingle chat {new.name}"))
def keep_as(house: House, asked: Naming) -> NamedTold:
    """Name a model together with its deltas.

    Nothing is copied: the name stands for the same base and the same deltas, which can't be removed as long as it is there.

    Examples:
        ingle keep smollm2+letters as letters
        ingle keep smollm2+letters --as letters
    """
    words = asked.words.split()
    names = [*(words[1:] if words[:1] == ["as"] else words), *([asked.name] if asked.name else [])]
    if len(names) != 1:
        raise RequestError("name", "Give one name", " ".join(names), "Say: ingle keep MODEL+DELTA as NAME")
    [chosen] = names
    kept = get_kept(house.home, asked.model)
    if kept.name == chosen:
        raise RequestError("name", f"The model is called {chosen} already", "", "Choose another name.")
    before = {one.name for one in list_kept(house.home)}
    new = keep(house.home, chosen, kept.base, kept.deltas)
    facts: dict[str, Fact] = {"of": kept.name, "base": kept.base, "deltas": len(kept.deltas), "stack": kept.digest}
    if new.name not in before or not _is_told(house, new.name, kept.digest):  # a kill may have come between the name and its fact
        house.record(Event("keep", new.name, facts))
    return NamedTold(new.name, kept.name, new.base, tuple(new.deltas))


def _is_told(house: House, name: str, stack: str) -> bool:
    """Return whether the newest fact of a name says that it stands for this stack."""
    rows = Ledger(house.engine, house.home.keys).read(subject=name)
    last = next((row for row in rows if row.kind in ("keep", "rm")), None)
    return last is not None and last.kind == "keep" and last.values.get("stack") == stack


@dataclass(frozen=True, slots=True)
class Leaving:
    """A thing to delete."""

    name: Annotated[str, About("A model, MODEL+DELTA, or a part (a voice, …).", "NAME", placed=True)]


@dataclass(frozen=True, slots=True)
class RemovedTold:
    """A deleted thing, and the room that it left."""

    name: str
    bases: tuple[str, ...]
    deltas: tuple[str, ...]
    bytes: int


def _says_removed(gone: RemovedTold) -> Iterable[Said]:
    return (f"{gone.name} is gone; {size(gone.bytes)} freed.",)


def _asks_remove(house: House, asked: Leaving, confirm: Confirm) -> Leaving | None:
    what = "with its files" if _is_part(house.home, asked.name) else _what(house.home, asked.name)
    return asked if confirm(f"Remove {asked.name} ({what})?") else None


@operation("rm", right="owner", says=_says_removed, asks=_asks_remove)
def rm(house: House, asked: Leaving) -> RemovedTold:
    """Delete a model or a delta.

    Its files are deleted too, unless another model uses them, and so are the lessons that were made for it. What was taught stays, for
    the next model of this name. Of MODEL+DELTA only the delta goes. The ledger still says that it was here.

    Examples:
        ingle rm smollm2
        ingle rm smollm2 --yes   (asks nothing)
        ingle rm smollm2+mine   (the delta alone)
        ingle rm kokoro   (voices)
    """
    home = house.home
    if _is_part(home, asked.name):
        return RemovedTold(asked.name, (), (), remove_part(home, asked.name, house.record))
    freed = remove(home, asked.name, lambda gone: house.record(gone.event))
    if anything_taught(home):
        with suppress(HomeError), home.lock(LOCK, timeout_s=0):  # a running learner does so by itself
            put_right(home, house.engine)
    return RemovedTold(freed.name, tuple(freed.bases), tuple(freed.deltas), freed.nbytes)


def _is_part(home: Home, name: str) -> bool:
    return any(part.name == name for part in list_parts(home))


def _what(home: Home, name: str) -> str:
    """Say what else would be deleted."""
    model, _, delta = name.rpartition("+")
    if model:
        get_kept(home, name)
        return f"the delta {delta}; {model} stays"
    try:
        kept = get_kept(home, name)
    except HomeError:
        return "its file is damaged"
    shared = [other.name for other in list_kept(home, lambda *_: None) if other.base == kept.base and other.name != name]
    return f"its files stay, {shared[0]} uses them" if shared else "with its files"
