"""Who took how many joules of the steps that several answers shared.

A step costs the reading of all weights, whoever takes part, and something for each token (a row of its matrices). So of the CPU-seconds of
a step, an answer with r of R rows, one of n answers, is given

    (a/n + b r) / (a + b R)

where a and b are what steps have lately cost, by least squares: a prompt that is read at 96 tokens a step pays for its many rows, an
answer beside it for half of the weights. Not in it: that a row costs more the longer its context is.

The clock of CPU-seconds is read at every step, the meter some fifty times a second; what it says is shared by what was booked since.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError
from ingle.core.message import Chunk
from ingle.energy.meter import Meter, Span

if TYPE_CHECKING:
    from ingle.engine.job import Job

_PACE_S = 0.02
_FADE = 0.995
"""Of what is known of earlier steps, from step to step."""
_WEIGHTS_IN_ROWS = 4.0
"""What the weights cost, in rows, before steps of different sizes were seen (SmolLM2-135M, two cores: 6 ms of CPU for a row, 39 for 32)."""


class StepCost:
    """CPU-seconds of a step = a + b × rows, by least squares in which old steps fade."""

    def __init__(self) -> None:
        self._n = self._r = self._s = self._rr = self._rs = 0.0

    def add(self, rows: int, seconds: float) -> None:
        """One more step."""
        self._n = _FADE * self._n + 1
        self._r = _FADE * self._r + rows
        self._s = _FADE * self._s + seconds
        self._rr = _FADE * self._rr + rows * rows
        self._rs = _FADE * self._rs + rows * seconds

    @property
    def weights_in_rows(self) -> float:
        """a / b: how many rows the reading of the weights is worth; between 0 and 1,000."""
        spread = self._n * self._rr - self._r * self._r
        if spread <= 1e-6 * self._n * self._rr:
            return _WEIGHTS_IN_ROWS
        slope = (self._n * self._rs - self._r * self._s) / spread
        start = (self._s - slope * self._r) / self._n
        return min(max(start / slope, 0.0), 1000.0) if slope > 0 else 1000.0


class StepMeter:
    """Belongs to the scheduler's thread; the totals may be read by others."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.cost = meter, StepCost()
        self.spent: dict[str, float] = {}
        """Joules of all steps so far, by source."""
        self._span: Span | None = None
        self._cpu_s = 0.0
        self._booked: dict[Job, float] = {}
        """CPU-seconds since the last reading, by answer."""
        self._left = NOTHING
        """Read while nothing was booked: goes to the next who book."""

    def begin(self) -> None:
        """A step begins. After a rest so does the time that somebody pays for."""
        if self._span is None:
            self._span, self._cpu_s = Span(self.meter, _PACE_S), self.meter.clocks.cpu_s()

    def share(self, parts: "Sequence[tuple[Job, int]]") -> None:
        """A step is done: (answer, rows) for all that took part. What was taken between the steps counts to the one that follows."""
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
        """The same, with what each answer took in the usage of those that have ended."""
        if self._span is not None and any(isinstance(outcome, Chunk) and outcome.usage is not None for _, outcome in outcomes):
            self._settle(self._span.end_of_piece())
        return [(job, _with_energy(job, outcome)) for job, outcome in outcomes]

    def rest(self) -> None:
        """Nobody is answered: what this process takes until the next step is nobody's."""
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
