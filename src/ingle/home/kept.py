"""Kept models: a name for a base and its deltas. `MODEL+DELTA` is a kept model with one more delta, and needs no file.

Listing them reads small files and imports no database.
"""

import difflib
import json
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingle.core.config import from_table, to_table
from ingle.core.delta import Delta
from ingle.core.digest import canonical_json
from ingle.core.errors import ConfigError, DeltaError, HomeError, NotKept
from ingle.core.files import os_errors, sync_folder, write_atomic
from ingle.core.report import Event, Fact
from ingle.home.base import Base, read_base, verify_base
from ingle.home.catalogue import ON_HUB
from ingle.home.deltas import LESSON, LOCK, find_delta, fitting_bases, get_delta, list_deltas, stack_digest, tree
from ingle.home.names import NAME, check_name
from ingle.home.parts import list_parts
from ingle.home.place import Home
from ingle.home.staging import bytes_in, discard, idle_days


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept model."""

    name: str
    base: str  # digest of the base
    deltas: tuple[str, ...]  # digests of the deltas, in order
    created_at: str  # UTC, ISO 8601

    @property
    def digest(self) -> str:
        """Digest of the base and its deltas: the one that a further delta is made for."""
        return stack_digest(self.base, self.deltas)


@dataclass(frozen=True, slots=True)
class Freed:
    """The result of `remove`."""

    name: str
    bases: tuple[str, ...]  # digests of bases that no name uses any more
    nbytes: int  # freed bytes on disk
    deltas: tuple[str, ...] = ()  # digests of removed deltas

    @property
    def event(self) -> Event:
        """The fact for the ledger."""
        facts: dict[str, Fact] = {"bases": len(self.bases), "base": self.bases[0] if self.bases else None, "bytes": self.nbytes}
        return Event("rm", self.name, facts | ({"delta": self.deltas[0]} if self.deltas else {}))


Damaged = Callable[[str, HomeError], None]  # gets the name of a kept model whose file can't be read, and the error


def list_kept(home: Home, damaged: Damaged | None = None) -> list[Kept]:
    """Return every kept model, by name; empty where there is no home yet.

    A damaged file goes to `damaged`, and the others are listed; without `damaged`, HomeError is raised.
    """
    models: list[Kept] = []
    for name in _names(home):
        try:
            models.append(_read(home, name))
        except HomeError as error:
            if damaged is None:
                raise
            if (home.models / f"{name}.json").exists():  # else it has just been removed
                damaged(name, error)
    return models


def list_models(home: Home, damaged: Damaged | None = None) -> list[Kept]:
    """Return every kept model, each followed by its `MODEL+DELTA`s. Damaged files are handled as in `list_kept`."""
    models: list[Kept] = []
    for kept in list_kept(home, damaged):
        named = {kept.deltas: kept}
        for above, delta in tree(home, kept.base, kept.deltas):
            if LESSON in delta.origin:
                continue
            named[above] = _with_delta(named[above[:-1]], delta)
        models += named.values()
    return models


def get_kept(home: Home, name: str) -> Kept:
    """Return the model of that name, or a delta on it: `MODEL+DELTA`, `MODEL+DELTA+ANOTHER`.

    Raises NotKept with the known names and close ones, DeltaError for a delta of another model, HomeError if a file is damaged.
    """
    model, *deltas = name.split("+")
    names = _names(home)
    if model not in names:
        raise _not_kept(home, model, names)
    kept = _read(home, model)
    for delta in deltas:
        kept = _with_delta(kept, find_delta(home, kept.name, fitting_bases(home, kept.base, kept.deltas), delta))
    return kept


def able(home: Home, kept: Kept, kind: str) -> Kept | None:
    """Return a model with the delta of this kind (`sight`, `painter`) that is kept for it; None if none is."""
    fitting = {digest: place for place, digest in enumerate(fitting_bases(home, kept.base, kept.deltas))}
    found = [delta for delta in list_deltas(home) if delta.kind == kind and delta.base_digest in fitting]
    best = min(found, key=lambda delta: fitting[delta.base_digest], default=None)
    return _with_delta(kept, best) if best is not None else None


def _with_delta(kept: Kept, delta: Delta) -> Kept:
    created_at = delta.origin.get("created_at", kept.created_at)
    return Kept(f"{kept.name}+{delta.name}", kept.base, (*kept.deltas, delta.digest), created_at)


def keep(home: Home, name: str, base: str, deltas: Iterable[str] = (), replace: bool = False) -> Kept:
    """Give a base (with deltas) a name. The same name for the same things again changes nothing.

    Raises NotKept if there is no such base or delta, DeltaError for deltas that were made for something else, ConfigError if the name can't
    be used, or is taken and `replace` is False.
    """
    with home.lock(LOCK):
        kept = _keep(home, name, base, tuple(deltas), replace)
        if replace:
            _sweep_unused(home)
    return kept


def adopt(home: Home, folder: Path, base: Base, name: str, replace: bool = False) -> Kept:
    """Move a finished staging folder to the bases, then name it, so that no name points nowhere.

    With `replace`, a taken name moves to the new base, and an unused old base is deleted. Raises as `keep` does.
    """
    target = home.base_folder(base.digest)
    with home.lock(LOCK):
        refuse_taken(home, name, base.digest, replace)
        if not _is_sound(home, base.digest):
            discard(home, target)
            if os.name != "nt":  # there a read-only file can't be deleted either
                for path in folder.iterdir():
                    path.chmod(0o444)  # a program that opens a base for writing meets a refusal first
            with os_errors(target):
                folder.replace(target)
                sync_folder(home.bases)
        kept = _keep(home, name, base.digest, (), replace)
        if replace:
            _sweep_unused(home)
    return kept


def refuse_taken(home: Home, name: str, base: str | None, replace: bool, deltas: tuple[str, ...] | None = None) -> None:
    """Raise ConfigError if `name` already means another base (None = any) or, where `deltas` are given, other deltas, and may not be moved:
    because `replace` is False, or because something was made for its present meaning."""
    names = _names(home)
    _refuse_other_case(name, names)
    if name not in names:
        return
    kept = _read(home, name)
    if kept.base == base and (deltas is None or kept.deltas == deltas):
        return
    if not replace:
        raise _name_taken(home, kept, newer=kept.base == base)
    grown = [*kept.deltas, *_named(home, kept.base)] if deltas is None else _named(home, kept.base, kept.deltas)
    if grown:
        cure = "Keep the new files under another name, or remove the old model first."
        raise ConfigError("name", f"The model {name} has deltas that were made for what it is now", len(grown), cure)


def _is_sound(home: Home, digest: str) -> bool:
    """Return whether the base is here already with every byte as it was."""
    try:
        return not verify_base(home, digest)
    except HomeError:
        return False


def _keep(home: Home, name: str, base: str, deltas: tuple[str, ...], replace: bool) -> Kept:
    check_name(name)
    if not home.base_folder(base).is_dir():
        raise NotKept(f"base {base[:12]}", "is not in this home", "", "Pull it first.")
    for i, digest in enumerate(deltas):
        get_delta(home, digest).check_base(*fitting_bases(home, base, deltas[:i]))
    names = _names(home)
    _refuse_other_case(name, names)
    if name in names:
        kept = _read(home, name)
        if (kept.base, kept.deltas) == (base, deltas):
            return kept
        if not replace:
            raise _name_taken(home, kept)
    kept = Kept(name, base, deltas, datetime.now(UTC).isoformat(timespec="seconds"))
    write_atomic(home.models / f"{name}.json", canonical_json(to_table(kept)), mode=0o600)
    return kept


def _refuse_other_case(name: str, names: list[str]) -> None:
    # Not every file system tells Foo.json from foo.json.
    others = [other for other in names if other.lower() == name.lower() and other != name]
    if others:
        raise ConfigError("name", f"differs from {others[0]} only in upper and lower case", name, "Choose another name.")


def _name_taken(home: Home, kept: Kept, newer: bool = False) -> ConfigError:
    """Return the error for a name that already means something else; `newer`: an earlier version of the same."""
    try:
        what = read_base(home, kept.base).source
    except HomeError:
        what = f"base {kept.base[:12]}"
    cure = f"Choose another name, or remove the old one first (`ingle rm {kept.name}`)."
    if newer:
        cure = f"Use --update to move the name to the new files. {cure}"
    return ConfigError("name", f"The name {kept.name} is taken by a model from another source or with other files", what, cure)


def remove(home: Home, name: str, tell: Callable[[Freed], object] = lambda _freed: None) -> Freed:
    """Remove a name, then every base (with its packed weights) that no name uses any more; for `MODEL+DELTA`, remove the delta.

    `tell` gets the list before anything is deleted; if it raises, all stays. Raises NotKept if there is no such name, DeltaError if other
    deltas would lose their base, HomeError if files can't be deleted.
    """
    bases, deltas, path = tuple[str, ...](), tuple[str, ...](), home.models / f"{name}.json"
    with home.lock(LOCK):
        if "+" in name:
            kept = get_kept(home, name)
            folders, deltas = _folders_of_delta(home, kept), kept.deltas[-1:]
        else:
            names = _names(home)
            if name not in names:
                raise _not_kept(home, name, names)
            # Reads the others before anything is dropped: an unreadable one might use a base that would look unused. The
            # model's own file is not read, so that a damaged one can be removed.
            bases = _unused(home, {_read(home, other).base for other in names if other != name})
            own = _own_stack(home, name)
            for base in bases:
                _refuse_orphans(name, own, [one for one in _grown(home, base) if one[1].digest not in own])
            folders = _folders_of_bases(home, bases, own)
        freed = Freed(name, bases, sum(map(bytes_in, folders)), deltas)
        tell(freed)
        if not deltas:  # they have no file beside their folder
            with os_errors(path):
                path.unlink()
        for folder in folders:
            discard(home, folder)
    return freed


def _own_stack(home: Home, name: str) -> tuple[str, ...]:
    """Return the deltas of a name; none if its file is damaged."""
    try:
        return _read(home, name).deltas
    except HomeError:
        return ()


def _folders_of_delta(home: Home, kept: Kept) -> list[Path]:
    """Return the folders of the last delta of a stack: its own, its lessons', and its packs."""
    digest = kept.deltas[-1]
    _refuse_orphans(kept.name, kept.deltas, _grown(home, kept.base, kept.deltas))
    users = [other.name for other in list_kept(home) if digest in other.deltas]
    if users:
        raise DeltaError(f"delta {kept.name}", "is part of other kept models", ", ".join(users), f"Remove these first: ingle rm {users[0]}")
    # Lessons go with their model, and their examples are then to be learned anew.
    lessons = [delta.digest for _, delta in tree(home, kept.base, kept.deltas) if LESSON in delta.origin]
    return [*(home.delta_folder(one) for one in (*lessons, digest)), home.pack_folder(kept.digest)]


def _grown(home: Home, base: str, deltas: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Delta]]:
    """Return the named deltas that grew on a stack, each with its whole stack. Lessons are left out: they go with their model."""
    return [one for one in tree(home, base, deltas) if LESSON not in one[1].origin]


def _named(home: Home, base: str, deltas: tuple[str, ...] = ()) -> list[str]:
    return [delta.name for _, delta in _grown(home, base, deltas)]


def _refuse_orphans(name: str, own: tuple[str, ...], grown: list[tuple[tuple[str, ...], Delta]]) -> None:
    """Raise DeltaError if these deltas would lose what they are applied to. `own`: the stack of the name."""
    if not grown:
        return
    names, stack = {delta.digest: delta.name for _, delta in grown}, grown[-1][0]
    cure = "They belong to another version of it: pull the model that they were made for again, and remove them there."
    if stack[: len(own)] == own:
        whole = "+".join([name, *(names.get(digest, digest[:12]) for digest in stack[len(own) :])])
        cure = f"Remove them first, the newest first: ingle rm {whole}"
    raise DeltaError(f"model {name}", "is what other deltas were made for", ", ".join(names.values()), cure)


def _sweep_unused(home: Home) -> None:
    for folder in _folders_of_bases(home, _unused(home, {_read(home, name).base for name in _names(home)})):
        discard(home, folder)


def _folders_of_bases(home: Home, bases: Iterable[str], own: Collection[str] = ()) -> list[Path]:
    """Return the folders of these bases: their own, their packs, their lessons, and the deltas of a removed name (`own`)."""
    folders = list[Path]()
    for digest in bases:
        for stack, delta in tree(home, digest):
            if delta.digest in own or LESSON in delta.origin:
                folders += [home.pack_folder(stack_digest(digest, stack)), home.delta_folder(delta.digest)]
        folders += [home.pack_folder(digest), home.base_folder(digest)]
    return folders


def sweep_packs(home: Home, days: float = 7) -> list[str]:
    """Delete packs that belong to nothing kept (killed trials of candidates) after so many idle days. Returns their digests."""
    old = [path for path in sorted(home.packs.iterdir()) if idle_days(path) > days] if home.packs.is_dir() else []
    if not old:
        return []
    bases = [path.name for path in home.bases.iterdir()]
    kept_digests = {*bases, *(stack_digest(base, stack) for base in bases for stack, _ in tree(home, base))}
    unknown = [path for path in old if path.name not in kept_digests]
    for path in unknown:
        discard(home, path)
    return [path.name for path in unknown]


def _unused(home: Home, used: set[str]) -> tuple[str, ...]:
    used |= {part.base for part in list_parts(home)}
    return tuple(sorted(path.name for path in home.bases.iterdir() if path.name not in used)) if home.bases.is_dir() else ()


def _names(home: Home) -> list[str]:
    return sorted(path.stem for path in home.models.glob("*.json") if NAME.fullmatch(path.stem))


def _read(home: Home, name: str) -> Kept:
    path = home.models / f"{name}.json"
    with os_errors(path):
        data = path.read_bytes()
    cure = f"Remove it (`ingle rm {name}`) and pull it again."
    try:
        kept = from_table(Kept, json.loads(data))
    except (ValueError, TypeError, ConfigError) as error:
        raise HomeError(str(path), "must describe a kept model", error, cure) from error
    if kept.name != name:
        raise HomeError(str(path), f"must describe the model {name}", kept.name, cure)
    return kept


def _not_kept(home: Home, name: str, names: list[str]) -> NotKept:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        cure = f"Did you mean {' or '.join(close)}?"
    elif names:
        cure = f"Kept here: {', '.join(names)}."
    else:
        cure = "Nothing is kept yet; `ingle pull smollm2` brings a first model."
    if name in ON_HUB:
        cure = f"`ingle pull {name}` brings it from the hub, about {ON_HUB[name].nbytes / 1e9:.1f} GB."
    return NotKept(f"model {name}", "is not kept in this home", "", cure)
