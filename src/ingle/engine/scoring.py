"""Log-probabilities of given endings, of many tasks at once. What all tasks begin with, and what is given to several endings, is read once.

Segments are read side by side without padding, so neither the order nor the lengths of tasks cost anything; and no result depends on
what is read beside it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.state_layout import STEP_TOKENS
from ingle.engine.backend import Backend, Segment
from ingle.engine.prefix_cache import common_length

Task = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Tokens that are given, and endings; see `measure.subject.Task`."""
Nats = npt.NDArray[np.float64]
_LOGIT_BYTES = 48 << 20
"""Room for the logits of one step: each row has a float32 per word of the vocabulary."""
_WORTH_SHARING = 16
"""Tokens that all tasks begin with, from which on it pays to read them apart."""


def _never() -> bool:
    return False


@dataclass(eq=False)
class _Lane:
    """One state and what it has to read: what is given (`ending` is None), or an ending but for its last token, which predicts nothing."""

    task: int
    ending: int | None
    state: Any
    ids: Sequence[int]
    done: int = 0


@dataclass(eq=False)
class _Known:
    """What is known of one task."""

    parts: list[list[Nats]]
    """Log-probabilities in the order of tokens, for each ending."""
    unread: int
    """Lanes that are still being read."""


def score(
    backend: Backend, tasks: Sequence[Task], stopped: Callable[[], bool] = _never, adapter: Any = None
) -> Iterator[tuple[int, list[Nats]]]:
    """The number of each task with its endings' log-probabilities, token by token, in nats, as they get ready.

    `stopped` is asked before every step; when it is true, nothing more comes. `adapter`: see `Segment.adapter`.
    Raises ContextError or RequestError for tokens that can't be read, ValueError for a task without tokens.
    """
    if any(not given or not endings or any(not ending for ending in endings) for given, endings in tasks):
        raise ValueError("a task needs given tokens, and endings of one token at least")
    start, length = _shared(backend, [given for given, _ in tasks], adapter)
    waiting, lanes, known = deque(range(len(tasks))), deque[_Lane](), dict[int, _Known]()
    most_rows = max(1, _LOGIT_BYTES // (4 * backend.config.vocab_size))
    while waiting or lanes:
        if stopped():
            return
        while waiting and sum(len(lane.ids) - lane.done for lane in lanes) < STEP_TOKENS:
            number = waiting.popleft()
            given, endings = tasks[number]
            known[number] = _Known([[] for _ in endings], unread=1)
            lanes.append(_Lane(number, None, start.fork(), given, length))
        turn = _turn(lanes, most_rows)
        segments = [
            Segment(lane.state, lane.ids[lane.done : lane.done + count], _wanted(lane, count), adapter=adapter) for lane, count in turn
        ]
        ready = []
        for (lane, count), rows in zip(turn, backend.forward(segments), strict=True):
            lane.done += count
            mine = known[lane.task]
            _take(lane, count, rows, tasks[lane.task][1], mine, lanes)
            if lane.done == len(lane.ids):
                lanes.remove(lane)
                mine.unread -= 1
                if not mine.unread:
                    ready.append((lane.task, [np.concatenate(parts) for parts in known.pop(lane.task).parts]))
        yield from ready  # not earlier: whoever takes them may run the backend, and the rows are gone


def _shared(backend: Backend, given: Sequence[Sequence[int]], adapter: Any) -> tuple[Any, int]:
    """A state that has read what all tasks begin with, but at least one token less than any; and how much that is."""
    state = backend.new_state()
    length = min((min(common_length(given[0], other), len(other) - 1) for other in given), default=0)
    if len(given) < 2 or length < _WORTH_SHARING:
        return state, 0
    for at in range(0, length, STEP_TOKENS):
        backend.forward([Segment(state, given[0][at : min(at + STEP_TOKENS, length)], "none", adapter=adapter)])
    return state, length


def _turn(lanes: deque[_Lane], most_rows: int) -> list[tuple[_Lane, int]]:
    """Who reads how many tokens in this step, the first come first."""
    turn, tokens, rows = [], STEP_TOKENS, most_rows
    for lane in lanes:
        most = min(tokens, rows) if lane.ending is not None else tokens if rows else 0
        count = min(len(lane.ids) - lane.done, most)
        if count:
            turn.append((lane, count))
            tokens -= count
            rows -= count if lane.ending is not None else 1
    return turn


def _wanted(lane: _Lane, count: int) -> Any:
    if lane.ending is not None:
        return "all"
    return "last" if lane.done + count == len(lane.ids) else "none"


def _take(
    lane: _Lane, count: int, rows: npt.NDArray[np.float32], endings: Sequence[Sequence[int]], mine: _Known, lanes: deque[_Lane]
) -> None:
    """What comes of the logits of `count` more tokens."""
    if lane.ending is not None:
        mine.parts[lane.ending].append(_log_probabilities(rows, endings[lane.ending][lane.done - count + 1 : lane.done + 1]))
        return
    if lane.done < len(lane.ids):
        return
    # What is given has been read: it predicts every ending's first token, and every longer ending goes on from it.
    firsts = _log_probabilities(rows, [[ending[0] for ending in endings]])
    longer = [number for number, ending in enumerate(endings) if len(ending) > 1]
    for number in range(len(endings)):
        mine.parts[number].append(firsts[0, number : number + 1])
    for number in reversed(longer):
        state = lane.state if number == longer[-1] else lane.state.fork()
        lanes.appendleft(_Lane(lane.task, number, state, endings[number][:-1]))
    mine.unread += len(longer)


def _log_probabilities(rows: npt.NDArray[np.float32], tokens: Any) -> Nats:
    """Of tokens [n] or [n, m] after logits [n, vocabulary]; exponentials in float32, their sum and the rest in float64."""
    chosen = np.asarray(tokens)
    peak = rows.max(axis=1)
    mass = np.exp(rows - peak[:, None]).sum(axis=1, dtype=np.float64)
    tops = peak + np.log(mass)
    index = chosen.reshape(len(rows), -1)
    values: Nats = np.take_along_axis(rows, index, axis=1).astype(np.float64) - tops[:, None]
    return values.reshape(chosen.shape)
