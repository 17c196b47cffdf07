"""Prefix cache: states of earlier prompts, found by the longest common start, so that known text is not read again.

An entry is the state after some tokens, of one model and one *owner*. Owners never see each other's entries, not even by an answer's
timing. Entries are forked, never handed out. Full pages are shared, so a branch costs only its new tokens. When the budget is reached, the
least recently used entries go.
"""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.clock import REAL, Clock
from ingle.core.digest import digest_json
from ingle.core.errors import CheckpointError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.core.state import State
from ingle.engine.backend import Backend

Ids = npt.NDArray[np.int32]


@dataclass(eq=False)
class CachedState:
    """A state and the tokens that it has read."""

    owner: str
    model: str  # digest of the model that made it
    ids: Ids
    state: State
    keep: str = ""  # the kept conversation that it belongs to; empty = none, so it must not be written to disk
    since: float = field(default_factory=time.time)  # when its text was requested, in seconds since 1970
    used: int = 0  # time of the last use, on the cache's own clock
    used_at: float = 0.0


@dataclass
class KnownStart:
    """The longest known start of a prompt."""

    state: State
    length: int


@dataclass
class PrefixCache:
    """States by owner and model. Not thread-safe: the scheduler's thread owns it."""

    budget_bytes: int
    clock: Clock = REAL
    _entries: list[CachedState] = field(default_factory=list)
    _clock: int = 0
    evicted: int = 0  # entries removed for the budget

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[CachedState]:
        return iter(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries; shared pages count once."""
        return sum(dict(piece for entry in self._entries for piece in entry.state.pieces()).values())

    def find(self, owner: str, model: str, ids: Sequence[int]) -> KnownStart | None:
        """Return a fork of the state with the longest start of `ids`, leaving at least one token to read; None if nothing is known."""
        best, length = self._best(owner, model, ids)
        if best is None:
            return None
        self._touch(best)
        state = best.state.fork()
        state.rewind(length)
        return KnownStart(state, length)

    def known(self, owner: str, model: str, ids: Sequence[int]) -> int:
        """Return how many tokens `find` would spare."""
        return self._best(owner, model, ids)[1]

    def put(self, owner: str, model: str, ids: Sequence[int], state: State, keep: str = "", since: float | None = None) -> None:
        """Take over a state that has read `ids`, which were requested at `since` (None = now).

        Entries that it replaces go, then as many as the budget requires.
        """
        read = np.array(ids, np.int32)
        assert len(read) == state.length, "a state's ids are what it has read"
        if not len(read):
            return
        for entry in [*self._of(owner, model)]:
            # One that is kept never takes over more than it has read itself: that would be saved although nobody asked for it.
            goes_back = len(entry.ids) >= len(read) >= entry.state.earliest_rewind and _common(entry.ids, read) == len(read)
            if goes_back and (entry.keep or not keep):
                self._touch(entry)
                return
            superfluous = len(entry.ids) <= len(read) and state.earliest_rewind <= len(entry.ids) == _common(entry.ids, read)
            if superfluous and (keep or not entry.keep):
                self._entries.remove(entry)
                keep = keep or entry.keep
        entry = CachedState(owner, model, read, state, keep, time.time() if since is None else since)
        self._entries.append(entry)
        self._touch(entry)
        self.shrink(self.budget_bytes)

    def shrink(self, budget_bytes: int) -> None:
        """Remove the least recently used entries until the rest fits."""
        while self._entries and self.nbytes > budget_bytes:
            self._entries.remove(min(self._entries, key=lambda entry: entry.used))
            self.evicted += 1

    def expire(self, seconds: float) -> float | None:
        """Remove entries that were not used for so many seconds. Return the seconds until the next one expires; None = there is none."""
        now = self.clock.now()
        self.drop(lambda entry: now - entry.used_at >= seconds)
        return min((seconds - (now - entry.used_at) for entry in self._entries), default=None)

    def forget(self, owner: str | None = None, keep: str | None = None, model: str | None = None) -> None:
        """Remove all entries of an owner, of a conversation, or of a model."""
        filters = {"owner": owner, "keep": keep, "model": model}
        active = {name: value for name, value in filters.items() if value is not None}
        self.drop(lambda entry: all(getattr(entry, name) == value for name, value in active.items()))

    def drop(self, gone: Callable[[CachedState], bool]) -> None:
        """Remove every entry for which `gone` is true."""
        self._entries = [entry for entry in self._entries if not gone(entry)]

    def _best(self, owner: str, model: str, ids: Sequence[int]) -> tuple[CachedState | None, int]:
        """Return the entry that can go back to the longest start of `ids`, and that start's length."""
        prompt, best, length = np.asarray(ids[:-1], np.int32), None, 0
        for entry in self._of(owner, model):
            common = common_length(entry.ids, prompt)
            if common > length and goes_back(entry.ids, entry.state.earliest_rewind, common):
                best, length = entry, common
        return best, length

    def _of(self, owner: str, model: str) -> Iterator[CachedState]:
        return (entry for entry in self._entries if entry.owner == owner and entry.model == model)

    def _touch(self, entry: CachedState) -> None:
        self._clock += 1
        entry.used, entry.used_at = self._clock, self.clock.now()


def goes_back(ids: Ids, earliest: int, length: int) -> bool:
    """Return whether a state that has read `ids` can go on from `length` of them; `earliest`: its `earliest_rewind`."""
    return length == len(ids) or length >= earliest


def common_length(a: Sequence[int] | Ids, b: Sequence[int] | Ids) -> int:
    """Return the length of the longest common start of two token sequences."""
    return _common(np.asarray(a, np.int32), np.asarray(b, np.int32))


def _common(a: Ids, b: Ids) -> int:
    size = min(len(a), len(b))
    differ: Any = a[:size] != b[:size]
    first = int(differ.argmax()) if size else 0
    return first if size and differ[first] else size


# States on disk, so that a kept conversation continues at once after a restart.
# Each has two files: NAME.state, and NAME.json with the tokens that it has read. The second is written last, so a state without one is
# unfinished. A state reveals the text that it has read: only kept conversations are saved, and a state goes when its text goes.
# OWNER.forgotten holds the time at which an owner last had text forgotten (seconds since 1970). No process writes text requested before
# that, even if it is still in memory.


FORGOTTEN = ".forgotten"


@dataclass(eq=False)
class Saved:
    """A state on disk."""

    owner: str
    model: str
    keep: str
    ids: Ids
    path: Path
    used: float  # time of the last use, in seconds since 1970
    nbytes: int
    earliest: int  # `earliest_rewind` of the state


@dataclass
class SavedStates:
    """The newest state of each kept conversation; the oldest go when the disk budget is reached."""

    folder: Path
    budget_bytes: int
    _saved: dict[str, Saved] = field(default_factory=dict)  # by name

    def open(self) -> None:
        """Read the folder; delete unfinished and damaged files. Raises HomeError if the folder can't be read."""
        with os_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                saved = _read(path) if path.suffix == ".json" else None
                if saved is not None:
                    self._saved[path.stem] = saved
            for path in self.folder.iterdir():
                if path.stem not in self._saved and path.suffix != FORGOTTEN:
                    path.unlink(missing_ok=True)

    def save_newest(self, entries: Iterable[CachedState], backends: Mapping[str, Backend], stopped: Callable[[], bool]) -> None:
        """Write the newest state of each kept conversation. `backends`: by digest; a model that is offered no more is not there."""
        newest = {(entry.owner, entry.keep): entry for entry in sorted(entries, key=lambda entry: entry.used) if entry.keep}
        for entry in newest.values():
            backend = backends.get(entry.model)
            if stopped():
                return
            if backend is not None:
                self.save(entry, backend)

    def save(self, entry: CachedState, backend: Backend) -> bool:
        """Write a kept entry, unless its newest state is there already. False if the disk has no room, or the state is useless."""
        name = _name(entry.owner, entry.keep)
        before = self._saved.get(name)
        if before is not None and before.model == entry.model and np.array_equal(before.ids, entry.ids):
            return True
        path = self.folder / f"{name}.state"
        if is_forgotten(entry, forgotten(self.folder)):
            return False
        try:
            self._drop(name)  # first the description: a new state must never pass for the old one
            backend.save_state(entry.state, path, _content_digest(entry.model, entry.ids))
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
        """Return the saved state with the longest usable start of `ids`, leaving at least one token to read, and that start's length."""
        mine = [saved for saved in self._saved.values() if saved.owner == owner and saved.model == model]
        commons = [(common_length(saved.ids, ids[:-1]), saved) for saved in mine]
        usable = [(common, saved) for common, saved in commons if common and goes_back(saved.ids, saved.earliest, common)]
        return max(usable, key=lambda pair: pair[0], default=None)

    def bring(self, owner: str, model: str, ids: Sequence[int], worth: int, backend: Backend) -> tuple[Saved, State] | None:
        """Return what `find` finds, with its loaded state, if it has read at least `worth` tokens of `ids`."""
        best = self.find(owner, model, ids)
        if best is None or best[0] < worth:
            return None
        state = self.load(best[1], backend)
        return None if state is None else (best[1], state)

    def load(self, saved: Saved, backend: Backend) -> State | None:
        """Return the state, or None if it can't be read any more: its files are then deleted, and the prompt is read again."""
        now = _read(saved.path.with_suffix(".json"))
        if now is None or now.model != saved.model or not np.array_equal(now.ids, saved.ids):  # another process has written or deleted it
            self._saved.pop(saved.path.stem, None)
            return None
        try:
            state: State | None = backend.load_state(saved.path, _content_digest(saved.model, saved.ids))
        except CheckpointError:
            state = None
        with suppress(OSError):  # somebody else may have deleted it; the answer doesn't hang on it
            if state is None or state.length != len(saved.ids):
                self._drop(saved.path.stem)
                return None
            os.utime(saved.path)
        return state

    def forget(self, owner: str, keep: str | None = None) -> None:
        """Delete the states of a conversation that is not kept any more; None = all of this owner's."""
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


def drop_saved(folder: Path, owners: Collection[str]) -> int:
    """Delete the saved states of these owners for good (see above). Returns how many there were. Raises HomeError."""
    gone = 0
    if not folder.is_dir():
        return gone
    for owner in owners:
        write_atomic(folder / f"{_stamp(owner)}{FORGOTTEN}", str(time.time()).encode(), mode=0o600)
    for path in sorted(folder.glob("*.json")):
        theirs: str | None = None
        with suppress(OSError, ValueError, AttributeError):
            theirs = json.loads(path.read_bytes()).get("owner")
        if theirs is None or theirs in owners:  # one that can't be read is of no use to anybody
            with os_errors(path):
                path.unlink(missing_ok=True)
                path.with_suffix(".state").unlink(missing_ok=True)
            gone += 1
    return gone


def forgotten(folder: Path) -> dict[str, float]:
    """Return when owners last had text forgotten, in seconds since 1970, by their stamp."""
    times: dict[str, float] = {}
    for path in folder.glob(f"*{FORGOTTEN}"):
        with suppress(OSError, ValueError):
            times[path.stem] = float(path.read_bytes())
    return times


def is_forgotten(entry: CachedState, gone: Mapping[str, float]) -> bool:
    """Return whether its owner has had text forgotten since it was requested."""
    return entry.since < gone.get(_stamp(entry.owner), -math.inf)


def _stamp(owner: str) -> str:
    return digest_json(owner)[:32]


def _content_digest(model: str, ids: Ids) -> str:
    """Return the digest of a state's content. Files are named after conversations, where another branch may have been written since."""
    return digest_json([model, ids.tolist()])


def _name(owner: str, keep: str) -> str:
    return digest_json([owner, keep])[:32]


def _read(path: Path) -> Saved | None:
    """Read a description; None if it is damaged or its state is missing."""
    state = path.with_suffix(".state")
    try:
        table = json.loads(path.read_bytes())
        stat = state.stat()
        ids, earliest = np.array(table["ids"], np.int32), int(table["earliest"])
        return Saved(str(table["owner"]), str(table["model"]), str(table["keep"]), ids, state, stat.st_mtime, stat.st_size, earliest)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
