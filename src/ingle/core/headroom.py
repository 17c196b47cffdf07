"""Headroom for an act: the memory and time that it will take, told before it begins, and a refusal where the memory isn't there.

Whoever learns, explains, tunes or hybridises reckons a `Need` from the model's config and the settings, before anything is allocated.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from ingle.core.errors import IngleError
from ingle.core.process import free_bytes, own_bytes, usable_cores

QUIET_S, QUIET_BYTES = 2.0, 1_000_000_000  # time and memory of an act too small to speak of
CURE = "Close other programs, or use a smaller model."


class NoRoom(IngleError):
    """An act that needs more memory than there is. It was refused before it took any."""

    exit_code, http_status = 16, 503


@dataclass(frozen=True, slots=True)
class Need:
    """Prediction of the time and memory of an act."""

    # The act as a sentence begins with it, e.g. "Learning this".
    act: str
    parts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # bytes at the worst moment, by what they are for
    seconds: float = 0.0  # time on this machine, as busy as it is now; 0 = not known

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Headroom:
    """A need beside the memory that it may take."""

    need: Need
    free: int | None  # bytes that the act may have, of those that this process has already too; None = not known
    limit: str = ""  # the setting that allows no more, if it is no lack of memory

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.free is None or self.need.memory <= self.free

    @property
    def told(self) -> str:
        """One line for the owner before the act begins; "" where it is too little to speak of."""
        need = self.need
        if need.seconds <= QUIET_S and need.memory <= QUIET_BYTES:
            return ""
        takes = f"about {spell_time(need.seconds)} and {spell_bytes(need.memory)}" if need.seconds else f"about {spell_bytes(need.memory)}"
        free = "" if self.free is None else f"; {spell_bytes(self.free)} are {'allowed' if self.limit else 'free'}"
        return f"{need.act} takes {takes} of memory{free}."

    def table(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        need = self.need
        return {
            "seconds": round(need.seconds, 1), "memory_bytes": need.memory, "free_bytes": self.free, "fits": self.fits,
            "parts": dict(need.parts),
        }  # fmt: skip

    def check(self, cure: str = CURE) -> None:
        """Raise NoRoom where the memory isn't there."""
        if self.fits:
            return
        assert self.free is not None, "what is not known is never too little"
        need = self.need
        most = max(need.parts, key=lambda name: need.parts[name])
        rule = f"{need.act} needs about {spell_bytes(need.memory)} of memory, {spell_bytes(need.parts[most])} of it for {most}"
        have = f"{self.limit} allows {spell_bytes(self.free)}" if self.limit else f"{spell_bytes(self.free)} are free"
        raise NoRoom("memory", f"{rule}, and {have}", "", f"Raise {self.limit}." if self.limit else cure)


def room_for(need: Need, free: int | None = None, limit: str = "", most: int = 0) -> Headroom:
    """Return the need beside what is free: this process's own memory counts as free, for the act may use it again.

    `free`: bytes, if they are known already. `most`: bytes that the setting `limit` allows; 0 = all that is free.
    """
    if free is None:
        free = free_bytes()
        free = None if free is None else free + own_bytes()
    if most and (free is None or most < free):
        return Headroom(need, most, limit)
    return Headroom(need, free)


def spell_bytes(count: float) -> str:
    """Return bytes for a sentence, e.g. 1.9 GB."""
    for unit in ("MB", "GB", "TB"):
        count /= 1000 if unit != "MB" else 1_000_000
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "MB" or count >= 10 else f"{count:.1f} {unit}"
    return f"{count:,.0f} TB"


def spell_time(seconds: float) -> str:
    """Return a time for a sentence, e.g. 40 s, 12 minutes, 3 hours."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 100 * 60 else f"{seconds / 3600:,.0f} hours"


# Pace of this machine: how fast it multiplies now, by a product that takes a few hundredths of a second.


_SIZE = 64  # small enough that the library gives it one thread: several would wait for whichever another program has put aside
_TIMES, _ROUNDS = 200, 8
_LEAST = 1e8


@cache
def pace() -> float:
    """Return float32 operations per second of one thread, the best of a few rounds of small products."""
    import numpy as np

    a = np.ones((_SIZE, _SIZE), np.float32)
    out, best = np.empty_like(a), 0.0
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_TIMES):
            np.matmul(a, a, out)
        best = max(best, 2 * _SIZE**3 * _TIMES / max(time.perf_counter() - began, 1e-9))
    return max(best, _LEAST)


# How fast a thread computes a model beside that product, by the bytes of a number: 1 = served from a pack, 2 = bfloat16, 4 = float32.
_SHARES = {1: 1.2, 2: 1.1, 4: 0.55}


def speed(threads: int | None, each: int) -> float:
    """Return the operations per second of so many threads (None = all) that compute a model in numbers of so many bytes."""
    cores = usable_cores()
    return pace() * _SHARES[each] * min(threads or cores, cores)
