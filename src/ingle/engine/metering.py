"""Energy per answer: the joules of shared steps, divided among the answers in them.

A step costs the reading of all weights, and something for each token (a row of its matrices). So of a step's CPU-seconds, an answer with r
of R rows, one of n answers, gets

    (a/n + b r) / (a + b R)

where a and b are the recent costs of steps, by least squares. A prompt that is read at 96 tokens a step pays for its many rows, an answer
beside it for half of the weights. Ignored: a row costs more the longer its context is.

The CPU clock is read at every step, the meter some fifty times a second; its joules are shared by the CPU-seconds booked since.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import Busy, IngleError, RequestError
from ingle.core.message import Chunk
from ingle.energy.meter import Meter, Span
from ingle.engine.job import spared

if TYPE_CHECKING:
    from ingle.engine.job import Job


_PACE_S = 0.02
_FADE = 0.995  # factor by which earlier steps fade with each new one
# Cost of the weights, in rows, before steps of different sizes were seen (SmolLM2-135M, two cores: 6 ms of CPU for a row, 39 for 32).
_WEIGHTS_IN_ROWS = 4.0


class StepCost:
    """CPU-seconds of a step = a + b × rows, by least squares in which old steps fade."""

    def __init__(self) -> None:
        self._n = self._r = self._s = self._rr = self._rs = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """Record one step."""
        self._n = _FADE * self._n + 1
        self._r = _FADE * self._r + rows
        self._s = _FADE * self._s + seconds
        self._rr = _FADE * self._rr + rows * rows
        self._rs = _FADE * self._rs + rows * seconds

    @property
    def weights_in_rows(self) -> float:
        """a / b: the cost of reading the weights, counted in rows; between 0 and 1,000."""
        spread = self._n * self._rr - self._r * self._r
        if spread <= 1e-6 * self._n * self._rr:
            return _WEIGHTS_IN_ROWS
        slope = (self._n * self._rs - self._r * self._s) / spread
        start = (self._s - slope * self._r) / self._n
        return min(max(start / slope, 0.0), 1000.0) if slope > 0 else 1000.0


class StepMeter:
    """Shares energy among jobs. Belongs to the scheduler's thread; others may read the totals."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.cost = meter, StepCost()
        self.spent: dict[str, float] = {}  # joules of all steps so far, by source
        self._span: Span | None = None
        self._cpu_s = 0.0
        self._booked: dict[Job | Reading, float] = {}  # CPU-seconds since the last reading, by answer
        self._left = NOTHING  # energy read while nothing was booked: goes to the next jobs that book

    def begin(self) -> None:
        """Begin a step. After a rest this also begins the time that jobs pay for."""
        if self._span is None:
            self._span, self._cpu_s = Span(self.meter, _PACE_S), self.meter.clocks.cpu_s()

    def share(self, parts: "Sequence[tuple[Job | Reading, int]]") -> None:
        """End a step with (answer, rows) for all that took part. Energy between steps counts to the following one."""
        assert self._span is not None, "begin() comes first"
        now = self.meter.clocks.cpu_s()
        seconds, self._cpu_s = now - self._cpu_s, now
        rows = sum(count for _, count in parts)
        self.cost.add(rows, seconds)
        weights = self.cost.weights_in_rows
        for job, count in parts:
            self._booked[job] = self._booked.get(job, 0.0) + seconds * (weights / len(parts) + count) / (weights + rows)
        taken = self._span.tick()
        if taken is not None:
            self._settle(taken)

    def told(self, outcomes: "Sequence[tuple[Job, Chunk | IngleError]]") -> "list[tuple[Job, Chunk | IngleError]]":
        """Return the outcomes with the energy of the answers that ended in their usage."""
        if self._span is not None and any(isinstance(outcome, Chunk) and outcome.usage is not None for _, outcome in outcomes):
            self._settle(self._span.end_of_piece())
        return [(job, _with_energy(job, outcome)) for job, outcome in outcomes]

    def settle(self) -> None:
        """Share out all energy up to now: something ends."""
        if self._span is not None:
            self._settle(self._span.end_of_piece())

    def rest(self) -> None:
        """Stop metering: while nothing is answered, this process's energy belongs to no job."""
        if self._span is not None and self._booked:
            self._settle(self._span.end_of_piece())
        self._span, self._left = None, NOTHING

    def _settle(self, taken: Energy) -> None:
        taken, self._left = taken + self._left, NOTHING
        if not self._booked:
            self._left = taken
            return
        self.spent[taken.source] = self.spent.get(taken.source, 0.0) + taken.joules
        booked, self._booked = self._booked, {}
        whole = sum(booked.values())
        for job, seconds in booked.items():
            job.energy = job.energy + taken.scaled(seconds / whole if whole else 1 / len(booked))


def _with_energy(job: "Job", outcome: Chunk | IngleError) -> Chunk | IngleError:
    if not isinstance(outcome, Chunk) or outcome.usage is None:
        return outcome
    return replace(outcome, usage=replace(outcome.usage, energy=job.energy))


# Prompts that are read beside answers for another purpose, an explanation's or a guard's: a step at a time, in turn, on the scheduler's
# thread.


MOST, MOST_OF_ONE = 4, 2  # readings at once, and of these those of one owner: nobody takes all places from the others
TOKENS, TOKENS_BESIDE = 256, 64  # tokens of one step, and while answers are written: they wait for it between two tokens


@dataclass(eq=False)
class Reading:
    """Prompts to read."""

    step: Callable[[int], int | None]  # takes a step of at most so many tokens; returns how many it may have had, None once all is read
    ended: Callable[[Exception | None], None]  # told once, when all is read, or by what error it ended
    needed_bytes: int  # memory for its states
    owner: str = ""
    awaited: bool = False  # whether an answer waits for it: it then takes no place from explanations
    energy: Energy = NOTHING  # its share so far; see `metering.StepMeter`


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
