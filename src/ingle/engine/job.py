"""Jobs for the scheduler, how many of them at once, and counts of those done."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import Busy, IngleError, KernelError, NoMemory
from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.message import Chunk, Request
from ingle.engine.decoding import Decoding
from ingle.engine.grammar import Grammar
from ingle.engine.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much may go on at once."""

    places: int = 32  # answers written at once
    places_per_owner: int = 24  # of these, how many one owner may hold: never all of them
    queue: int = 64  # answers that may wait
    queue_per_owner: int = 48  # of these, how many one owner may have
    state_bytes: int = 1 << 30  # for the states of running answers and of earlier prompts together
    prefill_tokens: int = 256  # prompt tokens of one step while nobody is writing
    prefill_tokens_beside: int = 96  # prompt tokens of one step beside answers that are being written
    drafts: bool = True  # whether several tokens may be written in a step; see engine/speculative.py
    keep_s: float = 300.0  # seconds after which the states of earlier prompts go if nobody asks for them


@dataclass(eq=False)
class Job:
    """One answer to be written. The first three say what; `deliver` is given its chunks, at last one with `finish`, or an error."""

    model: LanguageModel
    request: Request
    ids: list[int]
    deliver: Callable[[Chunk | IngleError], None]
    grammar: Grammar | None = None  # holds the answer to the language that was asked for
    owner: str = ""
    keep: str = ""  # label of what the answer belongs to that is kept in the home; see `prefix_cache.CachedState`
    # Tokens of the prompt that may be remembered, in memory and on disk; states that have read more end with the answer. None = all.
    lasting: int | None = None
    deadline: float | None = None  # by `time.perf_counter`
    asked: float = field(default_factory=time.perf_counter)
    vectors: Vectors = field(default_factory=lambda: NO_VECTORS)  # vectors that ids beyond the vocabulary stand for
    needed_bytes: int = 0
    cancelled: bool = False
    energy: Energy = NOTHING  # its share so far; see `metering.StepMeter`
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
    rows: int = 0  # tokens read in all steps
    read_tokens: int = 0  # prompt tokens that were read
    cached_tokens: int = 0  # prompt tokens that did not have to be
    written_tokens: int = 0
    busy_s: float = 0.0  # seconds in steps


Outcome = tuple[Job, Chunk | IngleError]


def post_directly(outcomes: Sequence[Outcome]) -> None:
    """Delivers where it came about: on the scheduler's own thread."""
    for job, outcome in outcomes:
        job.deliver(outcome)


# Turns whatever ends a job into an error for its client, and remembers whether memory has run out.


_LEAST_BYTES = 16 << 20  # bytes that an answer needs at least, scratch memory of the backend included


class Failures:
    """Failed jobs of one scheduler."""

    def __init__(self) -> None:
        self._lacked_bytes = 0

    def error_of(self, job: Job, error: Exception) -> IngleError:
        """Return the error for the client. One that is not Ingle's is logged, and reported as a bug."""
        if isinstance(error, IngleError):
            return error
        if isinstance(error, MemoryError):
            self._lacked_bytes = max(job.needed_bytes, _LEAST_BYTES)
            return NoMemory("memory", "There is no memory left for this answer", "", "Ask again later, or lower serve.state_mb.", 5.0)
        logging.getLogger("ingle").error("engine", exc_info=error)
        cure = "This is a bug in Ingle; the server's log has more."
        return KernelError("engine", "The engine failed on this request", type(error).__name__, cure)

    def starved(self) -> bool:
        """Return whether an answer failed for lack of memory, and so much still can't be had. Costs nothing as long as none has failed."""
        try:
            np.empty(self._lacked_bytes, np.uint8)
        except MemoryError:
            return True
        self._lacked_bytes = 0
        return False


def spared(work: Callable[[], None]) -> None:
    """Run work that no answer depends on: its errors are logged, and answers go on."""
    try:
        work()
    except Exception:
        logging.getLogger("ingle").exception("states")


# A queue in which owners take turns. Within one owner: first come, first served.


Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items waiting, by owner. Not thread-safe."""

    def __init__(self, most: int, most_per_owner: int) -> None:
        self._most, self._most_per_owner = most, most_per_owner
        self._lines: dict[str, deque[Item]] = {}  # lines by owner, in the order of their turns

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, owner: str, item: Item, retry_after_s: float) -> None:
        """Append an item to its owner's line. Raises Busy if too many wait already."""
        line = self._lines.get(owner, ())
        if len(line) >= self._most_per_owner:
            raise Busy(
                "queue",
                f"You have {self._most_per_owner} requests waiting, which is the most for one user",
                "",
                "Ask again later.",
                retry_after_s,
            )
        if len(self) >= self._most:
            raise Busy("queue", f"The server has {self._most} requests waiting and takes no more", "", "Ask again later.", retry_after_s)
        self._lines.setdefault(owner, deque()).append(item)

    def next(self, ready: Callable[[Item], bool]) -> tuple[str, Item] | None:
        """Return the first ready item of the owner whose turn it is, with that owner. It stays in the queue."""
        for owner, line in self._lines.items():
            for item in line:
                if ready(item):
                    return owner, item
        return None

    def take(self, owner: str, item: Item) -> None:
        """Remove an item; its owner's next turn comes after all others'."""
        line = self._lines.pop(owner)
        line.remove(item)
        if line:
            self._lines[owner] = line

    def drop(self, gone: Callable[[Item], bool]) -> list[Item]:
        """Remove and return all items for which `gone` is true."""
        out = [item for line in self._lines.values() for item in line if gone(item)]
        lines = {owner: deque(item for item in line if item not in out) for owner, line in self._lines.items()} if out else self._lines
        self._lines = {owner: line for owner, line in lines.items() if line}
        return out
