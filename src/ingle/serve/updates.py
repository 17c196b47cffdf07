"""`/v1/updates`: what changes for whoever asks, as server-sent events. A stream that was cut goes on by `Last-Event-ID`.

Each owner has one ring of recent events, and each stream a place in it: a slow reader holds no memory of its own, and one that falls
behind the ring, or comes from before a restart, is told to read anew (`reset`).
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingle import __version__
from ingle.core.errors import Busy

MOST_STREAMS, MOST_STREAMS_EACH = 256, 16  # streams at once, of all and of one owner
MOST_EVENTS, MOST_BYTES = 512, 1 << 20  # of an owner's ring
BEAT_S = 15.0  # after so many quiet seconds, a stream shows that it lives
RETRY_MS = 1000  # how soon a client comes again
MARKUP = "strokes"  # the field that only those get who draw answers as HTML


@dataclass(eq=False)
class Ring:
    """Recent events of one owner: (number, name, facts, bytes)."""

    first: int = 1  # number of the oldest event that is still here
    events: deque[tuple[int, str, Mapping[str, Any], int]] = field(default_factory=deque)
    bytes: int = 0
    more: set[asyncio.Event] = field(default_factory=set)  # one of each open stream

    @property
    def next(self) -> int:
        """The number of the event that comes next."""
        return self.first + len(self.events)

    def add(self, name: str, facts: Mapping[str, Any]) -> None:
        """Add an event. The oldest make room for it."""
        size = len(name) + sum(len(str(one)) for one in facts.values())
        self.events.append((self.next, name, facts, size))
        self.bytes += size
        while len(self.events) > MOST_EVENTS or (self.bytes > MOST_BYTES and len(self.events) > 1):
            self.bytes -= self.events.popleft()[3]
            self.first += 1
        for one in self.more:
            one.set()


class Updates:
    """The streams of one server. Belongs to its event loop; only `tell` may be called from any thread."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        self._rings: dict[str, Ring] = {}
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def owners(self) -> list[str]:
        """Return the owners of open streams."""
        return [owner for owner, ring in self._rings.items() if ring.more]

    def hears(self, owner: str) -> bool:
        """Return whether a stream of this owner is open."""
        ring = self._rings.get(owner)
        return ring is not None and bool(ring.more)

    def tell(self, owner: str | None, name: str, facts: Mapping[str, Any]) -> None:
        """Tell an owner's streams of something; None = everybody's. Those that are away, but were there, hear it when they come back."""
        loop = self._loop
        if loop is None:  # nobody has listened yet
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if not here:
            loop.call_soon_threadsafe(self.tell, owner, name, facts)
            return
        for ring in [*self._rings.values()] if owner is None else [self._rings[owner]] if owner in self._rings else []:
            ring.add(name, facts)

    def close(self) -> None:
        """End all streams, once they have had what there is."""
        self._closed = True
        for ring in self._rings.values():
            for one in ring.more:
                one.set()

    async def listen(self, owner: str, last: str = "", markup: bool = False) -> AsyncGenerator[bytes, None]:
        """Yield an owner's events from now on, or those behind the one with the id `last`; `markup`: with answers drawn as HTML.

        Raises Busy, before anything is yielded, for too many streams.
        """
        self._loop = asyncio.get_running_loop()
        ring = self._rings.setdefault(owner, Ring())
        streams = sum(len(one.more) for one in self._rings.values())
        if len(ring.more) >= MOST_STREAMS_EACH or streams >= MOST_STREAMS:
            raise Busy("updates", f"{len(ring.more)} streams are open", "", "Close one first.", 10.0)
        more = asyncio.Event()
        ring.more.add(more)
        try:
            boot, _, number = last.rpartition("-")
            at = int(number) + 1 if boot == self.boot and number.isdecimal() else 0 if last else ring.next
            yield f"retry: {RETRY_MS}\n\n".encode()
            yield self._line("hello", {"version": __version__, "boot": self.boot}, None)
            while not self._closed or at < ring.next:
                if not ring.first <= at <= ring.next:
                    yield self._line("reset", {}, ring.next - 1)
                    at = ring.next
                for number_, name, facts, _ in [*ring.events][at - ring.first :]:
                    yield self._line(name, facts if markup else {k: v for k, v in facts.items() if k != MARKUP}, number_)
                    at = number_ + 1
                    if at < ring.first:  # it took so long that what follows is gone
                        break
                more.clear()
                if at == ring.next and not self._closed:
                    try:
                        await asyncio.wait_for(more.wait(), BEAT_S)
                    except TimeoutError:
                        yield b": still here\n\n"
        finally:
            ring.more.discard(more)
            self._tidy()

    def _tidy(self) -> None:
        """Forget the rings that nobody listens to, the longest silent first, but for as many as there may be streams."""
        silent = [owner for owner, ring in self._rings.items() if not ring.more]
        for owner in silent[: max(0, len(silent) - MOST_STREAMS)]:
            del self._rings[owner]

    def _line(self, name: str, facts: Mapping[str, Any], number: int | None) -> bytes:
        id_ = "" if number is None else f"id: {self.boot}-{number}\n"
        return f"{id_}event: {name}\ndata: {json.dumps(facts, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
