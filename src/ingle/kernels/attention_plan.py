"""Plans of attention: the queries of a row of documents that go together, as the kernels read them (kernels/packed.py), in all layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingle.kernels import packed as at

Integers = npt.NDArray[np.int64]
BLOCK = 32
"""Least queries at a time, of a document that has as many: larger blocks waste more on the upper triangle, smaller ones read keys more
often."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBlock:
    """Queries that are computed together."""

    queries: slice
    """Places of these queries among all N."""
    keys: tuple[slice, ...]
    """Tokens of the row that any of these queries sees, ascending."""
    hidden: npt.NDArray[np.bool_] | None
    """[queries, last columns]: which of the last keys each query must not see; None = it sees all."""


class AttentionPlan:
    """Blocks of a row, also in the form that the kernels read."""

    def __init__(self, blocks: Sequence[AttentionBlock]) -> None:
        self.blocks = tuple(blocks)
        self._tasks: dict[tuple[int, int], list[Integers]] = {}
        self._runs: Integers | None = None

    def records(self) -> tuple[Integers, Integers]:
        """Blocks and runs (see kernels/packed.py)."""
        if self._runs is None:
            self._make()
        assert self._runs is not None
        return self._records, self._runs

    def tasks(self, groups: int, threads: int) -> list[Integers]:
        """Deal out pairs (block, group), so that all threads have about as much to do."""
        key = groups, threads
        if key not in self._tasks:
            costs = [
                (block.queries.stop - block.queries.start) * sum(keys.stop - keys.start for keys in block.keys) for block in self.blocks
            ]
            self._tasks[key] = deal(costs, groups, threads)
        return self._tasks[key]

    @property
    def most_queries(self) -> int:
        """Most queries of any block."""
        return max((block.queries.stop - block.queries.start for block in self.blocks), default=0)

    def _make(self) -> None:
        records, runs, biases = list[list[int]](), list[list[int]](), list[npt.NDArray[np.float32]]()
        size = 0
        for block in self.blocks:
            first, column = len(runs), 0
            total = sum(keys.stop - keys.start for keys in block.keys)
            certain = total if block.hidden is None else total - block.hidden.shape[-1]
            for keys in block.keys:
                for start in range(keys.start, keys.stop, at.RUN):
                    count = min(at.RUN, keys.stop - start)
                    bias = _bias(block, column, count, certain)
                    runs.append([start, count, size if bias is not None else -1, 0, 0])
                    if bias is not None:
                        runs[-1][3:] = [-(-count // 16) * 16 - bias.shape[1], bias.shape[1]]
                        biases.append(bias.ravel())
                        size += bias.size
                    column += count
            records.append([block.queries.start, block.queries.stop - block.queries.start, first, len(runs) - first])
        self._biases = np.concatenate(biases) if biases else np.zeros(1, np.float32)
        self._records, self._runs = np.array(records, np.int64), np.array(runs, np.int64)
        places = self._runs[:, 2]
        self._runs[:, 2] = np.where(places < 0, 0, self._biases.ctypes.data + 4 * places)


def deal(costs: Sequence[int], groups: int, threads: int) -> list[Integers]:
    """Deal out pairs (number, group), so that all threads have about as much to do; each takes a group's pairs one after the other."""
    dealt: list[list[tuple[int, int]]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for number in sorted(range(len(costs)), key=lambda i: -costs[i]):
        for group in range(groups):
            least = loads.index(min(loads))
            dealt[least].append((number, group))
            loads[least] += costs[number]
    return [np.array(sorted(some, key=lambda task: (task[1], task[0])), np.int64).reshape(-1, 2) for some in dealt]


def _bias(block: AttentionBlock, column: int, count: int, certain: int) -> npt.NDArray[np.float32] | None:
    """float32 [queries, columns up to the next 16] of a run whose first key is the block's key number `column`; None where all is seen."""
    width, seen = -(-count // 16) * 16, max(0, min(count, certain - column))
    first = seen // 16 * 16
    if seen == count and count == width:
        return None
    bias = np.zeros((block.queries.stop - block.queries.start, width - first), np.float32)
    bias[:, count - first :] = -np.inf
    if seen < count:
        assert block.hidden is not None
        low = column + seen - certain
        bias[:, seen - first : count - first][block.hidden[:, low : low + count - seen]] = -np.inf
    return bias


def pieces(queries: int) -> list[slice]:
    """Return slices that cut so many queries into equal pieces."""
    count = max(1, queries // BLOCK) if queries else 0
    return [slice(queries * i // count, queries * (i + 1) // count) for i in range(count)]
