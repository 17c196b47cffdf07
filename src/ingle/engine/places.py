"""Each place of an answer that is given: the log-probability of its token, and the likeliest tokens there. One pass, nothing is written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.state import STEP_TOKENS
from ingle.engine.backend import Backend, Segment
from ingle.engine.sampling import log_probabilities

_ROWS = 32
"""Most rows of logits at once: each has a float64 per word of the vocabulary on the way."""


@dataclass(frozen=True, slots=True)
class AnswerPlace:
    """A place of an answer."""

    token: int
    nats: float
    """Log-probability of its token."""
    likeliest: tuple[tuple[int, float], ...]
    """The likeliest tokens with their log-probabilities, the first one first."""


def places(
    backend: Backend,
    given: Sequence[int],
    answer: Sequence[int],
    count: int,
    stopped: Callable[[], bool] = lambda: False,
    adapter: Any = None,
    vectors: Vectors = NO_VECTORS,
) -> list[AnswerPlace]:
    """Return the places of an answer after its given tokens, with the `count` likeliest tokens of each; fewer places if it was stopped.

    `stopped` is asked before every step. Raises ContextError or RequestError for tokens that can't be read, ValueError if there are none.
    """
    found, steps = list[AnswerPlace](), places_in_steps(backend, given, answer, count, lambda: STEP_TOKENS, adapter, vectors)
    while not stopped() and (ready := next(steps, None)) is not None:
        found += ready
    return found


def places_in_steps(
    backend: Backend,
    given: Sequence[int],
    answer: Sequence[int],
    count: int,
    room: Callable[[], int],
    adapter: Any = None,
    vectors: Vectors = NO_VECTORS,
) -> Iterator[list[AnswerPlace]]:
    """Yield after every step of the backend the places that are ready: for whoever has other steps to take in between.

    `room`: the most tokens of the next step, at most STEP_TOKENS. Raises as `places` does.
    """
    if not given or not answer or not 0 < count <= backend.config.vocab_size:
        raise ValueError("an answer needs given tokens and tokens of its own, and at least one of the likeliest is asked for")
    ids, state = [*given, *answer[:-1]], backend.new_state()  # the last token predicts nothing
    first = len(given) - 1
    while (start := int(state.length)) < len(ids):
        wanted = start >= first
        end = min(start + min(room(), _ROWS), len(ids)) if wanted else min(start + room(), first)
        [rows] = backend.forward([Segment(state, ids[start:end], "all" if wanted else "none", adapter, vectors)])
        yield _read(rows, answer[start - first : end - first], count) if wanted else []


def _read(rows: npt.NDArray[np.float32], tokens: Sequence[int], count: int) -> list[AnswerPlace]:
    values = log_probabilities(rows)
    best = np.argpartition(values, -count, axis=1)[:, -count:]
    found = []
    for row, token, few in zip(values, tokens, best, strict=True):
        ranked = sorted(map(int, few), key=lambda one, row=row: (-row[one], one))  # type: ignore[misc]
        found.append(AnswerPlace(token, float(row[token]), tuple((one, float(row[one])) for one in ranked)))
    return found
