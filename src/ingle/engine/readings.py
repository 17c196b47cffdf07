"""Prompts that are read beside answers for another purpose, an explanation's or a guard's: a step at a time, in turn, on the scheduler's
thread."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import Busy, RequestError
from ingle.engine.failures import spared
from ingle.engine.metering import StepMeter

MOST, MOST_OF_ONE = 4, 2
"""Readings at once, and of these those of one owner: nobody takes all places from the others."""
TOKENS, TOKENS_BESIDE = 256, 64
"""Tokens of one step, and while answers are written: they wait for it between two tokens."""


@dataclass(eq=False)
class Reading:
    """Prompts to read."""

    step: Callable[[int], int | None]
    """Takes a step of at most so many tokens; returns how many it may have had, None once all is read."""
    ended: Callable[[Exception | None], None]
    """Told once, when all is read, or by what error it ended."""
    needed_bytes: int
    """Memory for its states."""
    owner: str = ""
    awaited: bool = False
    """Whether an answer waits for it: it then takes no place from explanations."""
    energy: Energy = NOTHING
    """Its share so far; see `metering.StepMeter`."""


class Readings:
    """The readings in progress. `add` may be called by any thread, the rest belongs to the scheduler's."""

    def __init__(self, meter: StepMeter) -> None:
        self._meter, self._waiting, self._lock = meter, deque[Reading](), Lock()
        self._needed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def needed_bytes(self) -> int:
        """Memory for all states."""
        return self._needed

    def add(self, reading: Reading, free_bytes: int, all_bytes: int, wait_s: float) -> None:
        """Add a reading. Raises Busy if there is no room beside the others, RequestError if there never is."""
        if reading.needed_bytes > all_bytes:
            got = f"{reading.needed_bytes / 1e6:.0f} MB"
            raise RequestError("prompt", f"must fit {all_bytes / 1e6:.0f} MB of states", got, "Raise serve.state_mb.")
        with self._lock:
            others = [one for one in self._waiting if not one.awaited]
            mine = sum(one.owner == reading.owner for one in others)
            full = not reading.awaited and (len(others) >= MOST or mine >= MOST_OF_ONE)
            if full or reading.needed_bytes > free_bytes:
                raise Busy("server", "There is no room for another explanation now", "", "Ask again in a moment.", wait_s)
            self._waiting.append(reading)
            self._needed += reading.needed_bytes

    def step(self, beside: bool, end: Exception | None) -> None:
        """Take one step of the next reading, if there is one, or end it by an error. `beside`: whether answers are written."""
        if not self._waiting:
            return
        reading, rows, error = self._waiting[0], None, end
        if error is None:
            self._meter.begin()
            try:
                rows = reading.step(TOKENS_BESIDE if beside else TOKENS)
            except Exception as failure:
                error = failure
            self._meter.share([(reading, rows or 1)])
            if rows is None:
                self._meter.settle()
        with self._lock:
            self._waiting.popleft()
            if rows is not None:
                self._waiting.append(reading)
            else:
                self._needed -= reading.needed_bytes
        if rows is None:
            spared(lambda: reading.ended(error))
