"""States on disk, so that a conversation that is kept goes on at once after a restart.

Two files for each: NAME.state, and NAME.json that says what it has read. The second is written last, so a state without one is
unfinished. A state is as telling as the text that it has read: only what the user keeps is saved, and it goes when the text goes.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.digest import digest_json
from ingle.core.errors import CheckpointError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.engine.backend import Backend
from ingle.engine.prefix_cache import Entry, Ids, common_length, goes_back


@dataclass(eq=False)
class Saved:
    """A state on disk."""

    owner: str
    model: str
    keep: str
    ids: Ids
    path: Path
    used: float
    """When, in seconds since 1970."""
    nbytes: int
    earliest: int
    """`earliest_rewind` of the state."""


@dataclass
class SavedStates:
    """One state for each kept conversation, the newest; the oldest go when the disk budget is reached."""

    folder: Path
    budget_bytes: int
    _saved: dict[str, Saved] = field(default_factory=dict)
    """By name."""

    def open(self) -> None:
        """Reads what is there; throws away what is unfinished or damaged. Raises HomeError if the folder can't be read."""
        with os_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                saved = _read(path) if path.suffix == ".json" else None
                if saved is not None:
                    self._saved[path.stem] = saved
            for path in self.folder.iterdir():
                if path.stem not in self._saved:
                    path.unlink(missing_ok=True)

    def save(self, entry: Entry, backend: Backend) -> bool:
        """Writes an entry that is kept, unless its newest is there already. False if the disk has no room, or the state is of no use."""
        name = _name(entry.owner, entry.keep)
        before = self._saved.get(name)
        if before is not None and before.model == entry.model and np.array_equal(before.ids, entry.ids):
            return True
        path = self.folder / f"{name}.state"
        try:
            self._drop(name)  # first the description: a new state must never pass for the old one
            backend.save_state(entry.state, path, entry.model)
            earliest = entry.state.earliest_rewind
            table = {"owner": entry.owner, "model": entry.model, "keep": entry.keep, "ids": entry.ids.tolist(), "earliest": earliest}
            write_atomic(path.with_suffix(".json"), json.dumps(table).encode(), mode=0o600)
            stat = path.stat()
        except (HomeError, CheckpointError, OSError):  # no room, or somebody else has just deleted it
            with suppress(OSError):
                self._drop(name)
            return False
        for other, saved in [*self._saved.items()]:  # what the new one can go back to, for instance the turn before
            mine = (saved.owner, saved.model) == (entry.owner, entry.model)
            if mine and entry.state.earliest_rewind <= len(saved.ids) == common_length(saved.ids, entry.ids):
                self._drop(other)
        self._saved[name] = Saved(entry.owner, entry.model, entry.keep, entry.ids, path, stat.st_mtime, stat.st_size, earliest)
        self._shrink()
        return True

    def find(self, owner: str, model: str, ids: Sequence[int]) -> tuple[int, Saved] | None:
        """The saved state that can go on from the longest start of `ids`, one token short at the most, and how much of it that is."""
        mine = [saved for saved in self._saved.values() if saved.owner == owner and saved.model == model]
        commons = [(common_length(saved.ids, ids[:-1]), saved) for saved in mine]
        usable = [(common, saved) for common, saved in commons if common and goes_back(saved.ids, saved.earliest, common)]
        return max(usable, key=lambda pair: pair[0], default=None)

    def bring(self, owner: str, model: str, ids: Sequence[int], worth: int, backend: Backend) -> tuple[Saved, Any] | None:
        """What `find` finds, with its state, if that has read `worth` tokens of `ids` or more and can be loaded."""
        found = self.find(owner, model, ids)
        if found is None or found[0] < worth:
            return None
        state = self.load(found[1], backend)
        return None if state is None else (found[1], state)

    def load(self, saved: Saved, backend: Backend) -> Any:
        """The state. None, and the files go, if it can't be read any more: the prompt is then read again."""
        try:
            state = backend.load_state(saved.path, saved.model)
        except CheckpointError:
            state = None
        if state is None or state.length != len(saved.ids):
            self._drop(saved.path.stem)
            return None
        os.utime(saved.path)
        return state

    def forget(self, owner: str, keep: str | None = None) -> None:
        """Deletes what belongs to something that is not kept any more; None = all of this owner's."""
        theirs = [name for name, saved in self._saved.items() if saved.owner == owner]
        for name in theirs if keep is None else [_name(owner, keep)]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._saved.pop(name, None)
        for suffix in (".json", ".state"):
            (self.folder / name).with_suffix(suffix).unlink(missing_ok=True)

    def _shrink(self) -> None:
        by_age = sorted(self._saved, key=lambda name: self._saved[name].used)
        while by_age and sum(saved.nbytes for saved in self._saved.values()) > self.budget_bytes:
            self._drop(by_age.pop(0))


def _name(owner: str, keep: str) -> str:
    return digest_json([owner, keep])[:32]


def _read(path: Path) -> Saved | None:
    """What a description says; None if it is damaged or its state is missing."""
    state = path.with_suffix(".state")
    try:
        table = json.loads(path.read_bytes())
        stat = state.stat()
        ids, earliest = np.array(table["ids"], np.int32), int(table["earliest"])
        return Saved(str(table["owner"]), str(table["model"]), str(table["keep"]), ids, state, stat.st_mtime, stat.st_size, earliest)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
