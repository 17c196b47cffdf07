"""Log-probabilities of endings, for many tasks at once. Their sequences form one trie, so a common start is read once.

Sequences are sorted, so those that share a start are neighbours. A *lane* reads one edge of the trie; at its end each branch goes on from a
fork. Lanes are read side by side without padding, so the order and lengths of tasks cost nothing. On a backend with exact cuts each result
equals, to the bit, that of its sequence read alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.state import STEP_TOKENS, State
from ingle.engine.adapter import Adapter
from ingle.engine.backend import Backend, Segment
from ingle.engine.prefix_cache import common_length

Task = tuple[Sequence[int], Sequence[Sequence[int]]]  # (given tokens, endings); see `measure.subjects.Task`
Nats = npt.NDArray[np.float64]
_LOGIT_BYTES = 48 << 20  # room for the logits of one step: each row has a float32 per word of the vocabulary
_WORTH_SHARING = 8  # tasks that share at least this many tokens are worth a fork


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Path:
    """One ending after its given tokens."""

    task: int
    ending: int
    # All tokens. The last one is not read: it predicts nothing.
    ids: list[int]
    given: int  # the number of given tokens

    @property
    def read(self) -> list[int]:
        """The tokens to read."""
        return self.ids[:-1]


@dataclass(eq=False)
class _Fork:
    """A state that several branches continue."""

    state: State
    branches: int

    def take(self) -> Any:
        """Return a state for one branch; the last branch gets the state itself."""
        self.branches -= 1
        return self.state.fork() if self.branches else self.state


@dataclass(eq=False)
class _Lane:
    """An edge of the trie being read: the common tokens of `paths`, up to `end`. Its state holds the position."""

    paths: Sequence[_Path]
    state: State
    end: int
    wanted: int  # the first token whose logits are needed; those of all later ones are, too

    @property
    def left(self) -> int:
        """Tokens to read."""
        return self.end - self.state.length

    def most(self, tokens: int, rows: int) -> int:
        """Return how many tokens to read next, within these limits of tokens and rows of logits."""
        start = self.state.length
        if start >= self.wanted:
            return min(self.left, tokens, rows)
        count = min(self.wanted + 1 - start, self.left, tokens)
        return count if rows or start + count <= self.wanted else count - 1

    def rows(self, count: int) -> int:
        """Return how many rows of logits the next `count` tokens give."""
        start = self.state.length
        return max(0, start + count - max(start, self.wanted))

    def segment(self, count: int, adapter: Adapter | None, vectors: Vectors) -> Segment:
        """Return the next `count` tokens as a segment."""
        start: int = self.state.length
        kind: Any = "all" if start >= self.wanted else "last" if start + count > self.wanted else "none"
        return Segment(self.state, self.paths[0].ids[start : start + count], kind, adapter, vectors)


def score(
    backend: Backend,
    tasks: Sequence[Task],
    stopped: Callable[[], bool] = _never,
    adapter: Adapter | None = None,
    vectors: Vectors = NO_VECTORS,
) -> Iterator[tuple[int, list[Nats]]]:
    """Yield each task's number with its endings' log-probabilities, token by token, in nats, as soon as they are ready.

    `stopped` is asked before every step; when it is true, nothing more comes. `adapter`, `vectors`: see `Segment`.
    Raises ContextError or RequestError for tokens that can't be read, ValueError for a task without tokens.
    """
    steps = score_in_steps(backend, tasks, lambda: STEP_TOKENS, adapter, vectors)
    while not stopped() and (ready := next(steps, None)) is not None:
        yield from ready


def score_in_steps(
    backend: Backend, tasks: Sequence[Task], room: Callable[[], int], adapter: Adapter | None = None, vectors: Vectors = NO_VECTORS
) -> Iterator[list[tuple[int, list[Nats]]]]:
    """Yield after every step of the backend the tasks that are ready, as `score` does: for whoever has other steps to take in between.

    `room`: the most tokens of the next step, at most STEP_TOKENS. Raises as `score` does.
    """
    if any(not given or not endings or any(not ending for ending in endings) for given, endings in tasks):
        raise ValueError("a task needs given tokens, and endings of one token at least")
    paths = [_Path(i, j, [*given, *ending], len(given)) for i, (given, endings) in enumerate(tasks) for j, ending in enumerate(endings)]
    paths.sort(key=lambda path: path.read)
    results = [[np.empty(len(ending)) for ending in endings] for _, endings in tasks]
    unread = [len(endings) for _, endings in tasks]
    lanes, waiting = deque[_Lane](), [(paths, _Fork(backend.new_state(), 1))] if paths else []
    most_rows = max(1, _LOGIT_BYTES // (4 * backend.config.vocab_size))
    while waiting or lanes:
        tokens = room()
        while waiting and sum(lane.left for lane in lanes) < tokens:
            _open(waiting, lanes)
        turn = _turn(lanes, tokens, most_rows)
        starts = [lane.state.length for lane, _ in turn]
        ready = []
        for (lane, _), start, rows in zip(
            turn, starts, backend.forward([lane.segment(count, adapter, vectors) for lane, count in turn]), strict=True
        ):
            _take(lane, max(start, lane.wanted), rows, results)
            if not lane.left:
                lanes.remove(lane)
                ready += _close(lane, unread, waiting)
        yield [(task, results[task]) for task in ready]  # not earlier: whoever takes them may run the backend, and the rows are gone
        for task in ready:
            results[task] = []


def _open(waiting: list[tuple[list[_Path], _Fork]], lanes: deque[_Lane]) -> None:
    """Open the latest waiting edge, so that few states are held; or split it, where there is too little to share."""
    paths, fork = waiting.pop()
    start = fork.state.length
    end = common_length(paths[0].read, paths[-1].read)
    if end - start < (_WORTH_SHARING if paths[0].task != paths[-1].task else 1) and len(paths[-1].read) > end:
        parts = _parted(paths, end)
        fork.branches += len(parts) - 1
        waiting += [(part, fork) for part in parts]
    else:
        first_needed = min(path.given for path in paths) - 1
        lanes.append(_Lane(paths, fork.take(), end, max(first_needed, start)))


def _parted(paths: Sequence[_Path], at: int) -> list[list[_Path]]:
    """Group sorted paths by their token at place `at`; those that end there come first."""
    groups: dict[int, list[_Path]] = {}
    for path in paths:
        groups.setdefault(path.ids[at] if len(path.ids) - 1 > at else -1, []).append(path)
    return list(groups.values())


def _turn(lanes: Sequence[_Lane] | deque[_Lane], tokens: int, rows: int) -> list[tuple[_Lane, int]]:
    """Return the lanes of this step with their token counts, first come, first served."""
    turn = []
    for lane in lanes:
        count = lane.most(tokens, rows)
        if count > 0:
            turn.append((lane, count))
            tokens -= count
            rows -= lane.rows(count)
    return turn


def _take(lane: _Lane, first: int, rows: npt.NDArray[np.float32], results: list[list[Nats]]) -> None:
    """Store the log-probabilities of each path's next tokens, from the logits after the tokens from place `first` on."""
    if not len(rows):
        return
    peak = rows.max(axis=1)
    mass = np.exp(rows - peak[:, None]).sum(axis=1, dtype=np.float64)
    tops = peak + np.log(mass)
    for path in lane.paths:
        start = max(first, path.given - 1)
        following = path.ids[start + 1 : first + len(rows) + 1]
        places = np.arange(start - first, start - first + len(following))
        values = rows[places, following].astype(np.float64) - tops[places]
        results[path.task][path.ending][start - path.given + 1 :][: len(values)] = values


def _close(lane: _Lane, unread: list[int], waiting: list[tuple[list[_Path], _Fork]]) -> list[int]:
    """Send the branches on from the end of an edge; return the tasks that are read completely."""
    *_, longest = lane.paths
    parts = _parted(lane.paths, lane.end) if len(longest.read) > lane.end else [[*lane.paths]]
    ready = []
    if len(parts[0][0].read) == lane.end:
        for path in parts.pop(0):
            unread[path.task] -= 1
            if not unread[path.task]:
                ready.append(path.task)
    fork = _Fork(lane.state, len(parts))
    waiting += [(part, fork) for part in parts]
    return ready
