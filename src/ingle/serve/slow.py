"""Slow work of a server: each kind in threads of its own, in which askers take turns.

What one asker sends may take minutes to decode, hear or see. So it is done piece by piece, and each piece waits for its turn among the
askers; tokens, keys and health use other threads. Whoever has gone is waited for by nobody: their piece is told to stop, and their next one
never begins.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ingle.core.apart import StopFlag
from ingle.engine.job import FairQueue
from ingle.media.decoder import PLACES
from ingle.serve.shares import Places

T = TypeVar("T")
SEATS, SEATS_EACH = 64, 8  # requests with pictures or sounds that are worked on or wait, of all askers and of each
_NO_LIMIT = 1 << 30


@dataclass(eq=False, slots=True)
class _Turn:
    asker: str
    ready: "asyncio.Future[None]"


class Turns:
    """One kind of work. Belongs to the event loop."""

    def __init__(self, name: str, places: int, each: int = 1) -> None:
        """`places`: pieces at once; `each`: of one asker."""
        self._pool, self._free, self._each = ThreadPoolExecutor(places, name), places, each
        self._queue: FairQueue[_Turn] = FairQueue(_NO_LIMIT, _NO_LIMIT)
        self._running: Counter[str] = Counter()
        self._stops: set[StopFlag] = set()

    async def do(self, asker: str, work: Callable[[StopFlag], T]) -> T:
        """Return what one piece of work returns, or raise what it raises. Cancelled, it gives up the place when the piece has ended."""
        loop = asyncio.get_running_loop()
        turn = _Turn(asker, loop.create_future())
        self._queue.add(asker, turn, 0.0)
        self._call()
        try:
            await turn.ready
        except asyncio.CancelledError:
            if not self._queue.drop(lambda one: one is turn):
                self._leave(asker)
            raise
        stop = StopFlag()
        self._stops.add(stop)
        done = loop.run_in_executor(self._pool, work, stop)
        done.add_done_callback(lambda one: self._ended(asker, stop, one))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            stop.set()
            raise

    def close(self) -> None:
        """Begin nothing any more, and tell what goes on to stop."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for stop in self._stops:
            stop.set()

    def _call(self) -> None:
        """Give free places to those whose turn it is."""
        while self._free and (found := self._queue.next(lambda one: self._running[one.asker] < self._each)) is not None:
            asker, turn = found
            self._queue.take(asker, turn)
            self._free -= 1
            self._running[asker] += 1
            if not turn.ready.done():
                turn.ready.set_result(None)

    def _ended(self, asker: str, stop: StopFlag, done: "asyncio.Future[T]") -> None:
        self._stops.discard(stop)
        if not done.cancelled():
            done.exception()  # somebody has gone: nobody else looks at it
        self._leave(asker)

    def _leave(self, asker: str) -> None:
        self._free += 1
        self._running[asker] -= 1
        if not self._running[asker]:
            del self._running[asker]
        self._call()


class Slow:
    """All kinds of slow work of one server."""

    def __init__(self) -> None:
        self.decoding = Turns("decode", PLACES)  # files of pictures and sounds; pictures are seen in the same piece
        self.speech = Turns("speech", 1)  # hearing windows and speaking clauses, which have one process
        self.prompts = Turns("prompt", 4, 2)  # templates and tokenizers, of which a stranger's may take seconds; and painted pictures
        self.guards = Turns("guard", 2)  # judges that read requests
        self.guard_models = Turns("guard model", 4)  # guard models' questions, which take seconds; their tokens are read by the scheduler
        self.doors = Turns("door", 4, 4)  # keys and health
        # Requests with pictures or sounds, as long as these are worked on.
        self.seats = Places("pictures and sounds in work", SEATS, SEATS_EACH)

    def close(self) -> None:
        """Begin nothing any more."""
        for turns in (self.decoding, self.speech, self.prompts, self.guards, self.guard_models, self.doors):
            turns.close()
