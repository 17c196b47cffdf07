"""Prefix cache: states of earlier prompts, found by the longest common start, so that known text is not read again.

An entry is the state after some tokens, of one model and one *owner*. Owners never see each other's entries, not even by an answer's
timing. Entries are forked, never handed out. Full pages are shared, so a branch costs only its new tokens. When the budget is reached, the
least recently used entries go.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.engine.backend import AnyState

Ids = npt.NDArray[np.int32]


@dataclass(eq=False)
class CachedState:
    """A state and the tokens that it has read."""

    owner: str
    model: str
    """Digest of the model that made it."""
    ids: Ids
    state: AnyState
    keep: str = ""
    """The kept conversation that it belongs to; empty = none, so it must not be written to disk."""
    since: float = field(default_factory=time.time)
    """When its text was requested, in seconds since 1970."""
    used: int = 0
    """Time of the last use, on the cache's own clock."""
    used_at: float = 0.0
    """By `time.monotonic`."""


@dataclass
class KnownStart:
    """The longest known start of a prompt."""

    state: AnyState
    length: int


@dataclass
class PrefixCache:
    """States by owner and model. Not thread-safe: the scheduler's thread owns it."""

    budget_bytes: int
    _entries: list[CachedState] = field(default_factory=list)
    _clock: int = 0
    evicted: int = 0
    """Entries removed for the budget."""

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

    def put(self, owner: str, model: str, ids: Sequence[int], state: AnyState, keep: str = "", since: float | None = None) -> None:
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
        now = time.monotonic()
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
        entry.used, entry.used_at = self._clock, time.monotonic()


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
