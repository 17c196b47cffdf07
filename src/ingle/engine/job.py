"""Jobs for the scheduler, how many of them at once, and counts of those done."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.message import Chunk, Request
from ingle.engine.decoding import Decoding
from ingle.engine.grammar import Grammar
from ingle.engine.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much may go on at once."""

    places: int = 32
    """Answers written at once."""
    places_per_owner: int = 24
    """Of these, how many one owner may hold: never all of them."""
    queue: int = 64
    """Answers that may wait."""
    queue_per_owner: int = 48
    """Of these, how many one owner may have."""
    state_bytes: int = 1 << 30
    """For the states of running answers and of earlier prompts together."""
    prefill_tokens: int = 256
    """Prompt tokens of one step while nobody is writing."""
    prefill_tokens_beside: int = 96
    """Prompt tokens of one step beside answers that are being written."""
    drafts: bool = True
    """Whether several tokens may be written in a step; see engine/speculative.py."""
    keep_s: float = 300.0
    """Seconds after which the states of earlier prompts go if nobody asks for them."""


@dataclass(eq=False)
class Job:
    """One answer to be written. The first three say what; `deliver` is given its chunks, at last one with `finish`, or an error."""

    model: LanguageModel
    request: Request
    ids: list[int]
    deliver: Callable[[Chunk | IngleError], None]
    grammar: Grammar | None = None
    """Holds the answer to the language that was asked for."""
    owner: str = ""
    keep: str = ""
    """Label of what the answer belongs to that is kept in the home; see `prefix_cache.CachedState`."""
    lasting: int | None = None
    """Tokens of the prompt that may be remembered, in memory and on disk; states that have read more end with the answer. None = all."""
    deadline: float | None = None
    """By `time.perf_counter`."""
    asked: float = field(default_factory=time.perf_counter)
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)
    """Vectors that ids beyond the vocabulary stand for."""
    needed_bytes: int = 0
    cancelled: bool = False
    energy: Energy = NOTHING
    """Its share so far; see `metering.StepMeter`."""
    _decoding: Decoding | None = None

    @property
    def decoding(self) -> Decoding:
        """The answer on its way; there is one from the moment that the job has a place."""
        assert self._decoding is not None
        return self._decoding

    @decoding.setter
    def decoding(self, decoding: Decoding) -> None:
        self._decoding = decoding

    @property
    def since(self) -> float:
        """When it was asked, in seconds since 1970."""
        return time.time() - (time.perf_counter() - self.asked)

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now >= self.deadline


@dataclass
class Counts:
    """Counts of the scheduler's work, for metrics. Only ever counts up."""

    steps: int = 0
    rows: int = 0
    """Tokens read in all steps."""
    read_tokens: int = 0
    """Prompt tokens that were read."""
    cached_tokens: int = 0
    """Prompt tokens that did not have to be."""
    written_tokens: int = 0
    busy_s: float = 0.0
    """Seconds in steps."""


Outcome = tuple[Job, Chunk | IngleError]


def post_directly(outcomes: Sequence[Outcome]) -> None:
    """Delivers where it came about: on the scheduler's own thread."""
    for job, outcome in outcomes:
        job.deliver(outcome)
