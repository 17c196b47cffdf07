"""Attention of packed documents in one row, forward and backward for training, in float32 (train/forward.py).

A *task* is a block of queries of one group. Its rows are queries × the heads that share the group, so keys and values are read once for
all. Visible tokens are cut into *runs* of neighbouring tokens, at most RUN of them; a run's scores stay in the cache. Forward: online
softmax over runs (arXiv 1805.02867). Back: weights are made again from the largest score and the sum, and nothing else is kept
(FlashAttention-2, arXiv 2307.08691, Algorithm 2). All six products are one function over strides.

Layouts, float32: q, out and their slopes [G, N, R, width]; k, v [G, T, width], and transposed [G, width, line]; sums [G, N, R, 2]; inner
[G, N, R]. width: D. Blocks are records of int64 (first query, queries, first run, runs); runs (first token, tokens, address
of a bias or 0, first column of the bias, floats from one query's bias to the next's). Biases are 0, or −∞ where a query must not look,
columns up to the next 16 included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from ingle.kernels.attention import clear_part, soften
from ingle.kernels.cpu import tile_rows
from ingle.kernels.rows import exp
from ingle.kernels.simd import f32_at, get, load_f32, scale, set_f32, splat, store_f32
from ingle.kernels.tiles import load_tile, outer, store_tile, zeros_f

RUN = 512  # most tokens of a run
LINE = 4 * (RUN + 16)  # bytes from one row of scores to the next: no power of two, for those share few places of a cache
# Fields of a call's record: sizes, and addresses.
FIELDS = (
    "WIDTH", "REPEATS", "QUERIES", "TOKENS", "TRANSPOSED_LINE", "BLOCKS", "RUNS", "Q", "K", "V", "K_TRANSPOSED", "V_TRANSPOSED", "OUT",
    "SUMS", "INNER", "TO_OUT", "TO_Q",
)  # fmt: skip
(
    WIDTH, REPEATS, QUERIES, TOKENS, TRANSPOSED_LINE, BLOCKS, RUNS, Q, K, V, K_TRANSPOSED, V_TRANSPOSED, OUT, SUMS, INNER, TO_OUT, TO_Q,
) = range(len(FIELDS))  # fmt: skip


def scratch_floats(rows: int) -> int:
    """Return the float32 of scratch that a thread needs for tasks of so many rows."""
    return rows * (2 * LINE // 4 + 2)


def _product(rows):
    @njit
    def product(steps, a, step, row, b, line, out, stride, fresh):
        tile = zeros_f(rows) if fresh else load_tile(rows, out, stride)
        for i in range(steps):
            tile = outer(tile, load_f32(b + i * line), a + i * step, row)
        store_tile(tile, out, stride)

    return product


_MOST, _ = tile_rows()
_large, _p4, _p2, _p1 = (_product(rows) for rows in (_MOST, 4, 2, 1))


@njit
def multiply(rows, columns, steps, a, step, row, b, line, out, stride, fresh):
    """Compute out[r, c] = Σ over i of a[r, i] · b[i, c], added to out unless `fresh`; columns go up to the next 16.

    a: its steps and rows are `step` and `row` bytes apart; b: rows `line` bytes apart; out: rows `stride` bytes apart.
    """
    for c in range(0, 4 * columns, 64):
        r = 0
        while r + _MOST <= rows:
            _large(steps, a + r * row, step, row, b + c, line, out + r * stride + c, stride, fresh)
            r += _MOST
        while r + 4 <= rows:
            _p4(steps, a + r * row, step, row, b + c, line, out + r * stride + c, stride, fresh)
            r += 4
        while r + 2 <= rows:
            _p2(steps, a + r * row, step, row, b + c, line, out + r * stride + c, stride, fresh)
            r += 2
        while r < rows:
            _p1(steps, a + r * row, step, row, b + c, line, out + r * stride + c, stride, fresh)
            r += 1


@njit
def _row(call, field, block, group, floats):
    """Return the address of a task's first row among values of so many float32 a row."""
    return get(call, field) + 4 * floats * (group * get(call, QUERIES) + get(block, 0)) * get(call, REPEATS)


@njit
def _key(call, field, run, group):
    """Return the address of a run's first token in k or v."""
    return get(call, field) + 4 * get(call, WIDTH) * (group * get(call, TOKENS) + get(run, 0))


@njit
def _transposed(call, field, run, group):
    """Return the address of a run's first token in k or v transposed."""
    return get(call, field) + 4 * (group * get(call, WIDTH) * get(call, TRANSPOSED_LINE) + get(run, 0))


@njit
def _score(call, rows, q, run, group, scores):
    """Compute the scores of a run, −∞ where a query must not look."""
    width, repeats, keys = get(call, WIDTH), get(call, REPEATS), get(run, 1)
    k = _transposed(call, K_TRANSPOSED, run, group)
    multiply(rows, keys, width, q, 4, 4 * width, k, 4 * get(call, TRANSPOSED_LINE), scores, LINE, True)
    if get(run, 2) != 0:
        first = get(run, 3)
        for r in range(rows):
            bias = get(run, 2) + 4 * (r // repeats) * get(run, 4)
            for c in range(first, keys, 16):
                place = scores + r * LINE + 4 * c
                store_f32(place, load_f32(place) + load_f32(bias + 4 * (c - first)))


def packed_forward(call, tasks, count, scratch):
    """Entry: outputs, and for each row the largest score and 1 / the sum of weights. tasks: pairs (block, group)."""
    width, repeats = get(call, WIDTH), get(call, REPEATS)
    for task in range(count):
        block, group = get(call, BLOCKS) + 32 * get(tasks, 2 * task), get(tasks, 2 * task + 1)
        rows = get(block, 1) * repeats
        q, out, sums = (_row(call, Q, block, group, width), _row(call, OUT, block, group, width), _row(call, SUMS, block, group, 2))
        for r in range(rows):
            clear_part(out + 4 * width * r, sums + 8 * r, width)
        for i in range(get(block, 3)):
            run = get(call, RUNS) + 40 * (get(block, 2) + i)
            keys = get(run, 1)
            _score(call, rows, q, run, group, scratch)
            for r in range(rows):
                soften(scratch + LINE * r, (keys + 15) // 16, sums + 8 * r, out + 4 * width * r, width)
            multiply(rows, width, keys, scratch, 4, LINE, _key(call, V, run, group), 4 * width, out, 4 * width, False)
        for r in range(rows):
            share = 1 / f32_at(sums + 8 * r + 4)
            set_f32(sums + 8 * r + 4, share)
            scale(out + 4 * width * r, share, out + 4 * width * r, width)


@njit
def _slopes(scores, to_weights, columns, top, share, inner):
    """Turn one row's scores into weights, and the slopes at its weights into those at its scores."""
    for c in range(0, 4 * columns, 64):
        weight = exp(load_f32(scores + c) - splat(top)) * splat(share)
        store_f32(scores + c, weight)
        store_f32(to_weights + c, weight * (load_f32(to_weights + c) - splat(inner)))


def packed_backward(call, tasks, count, scratch, to_k, to_v):
    """Entry: slopes at q (written), and at k and v (added to this thread's own [G, T, width])."""
    width, repeats = get(call, WIDTH), get(call, REPEATS)
    for task in range(count):
        block, group = get(call, BLOCKS) + 32 * get(tasks, 2 * task), get(tasks, 2 * task + 1)
        rows = get(block, 1) * repeats
        q, to_out, to_q = (
            _row(call, Q, block, group, width),
            _row(call, TO_OUT, block, group, width),
            _row(call, TO_Q, block, group, width),
        )
        sums, inner, to_weights = _row(call, SUMS, block, group, 2), _row(call, INNER, block, group, 1), scratch + rows * LINE
        for i in range(get(block, 3)):
            run = get(call, RUNS) + 40 * (get(block, 2) + i)
            keys = get(run, 1)
            own = 4 * width * (group * get(call, TOKENS) + get(run, 0))
            _score(call, rows, q, run, group, scratch)
            v = _transposed(call, V_TRANSPOSED, run, group)
            multiply(rows, keys, width, to_out, 4, 4 * width, v, 4 * get(call, TRANSPOSED_LINE), to_weights, LINE, True)
            for r in range(rows):
                place = sums + 8 * r
                _slopes(scratch + LINE * r, to_weights + LINE * r, keys, f32_at(place), f32_at(place + 4), f32_at(inner + 4 * r))
            multiply(rows, width, keys, to_weights, 4, LINE, _key(call, K, run, group), 4 * width, to_q, 4 * width, i == 0)
            multiply(keys, width, rows, to_weights, LINE, 4, q, 4 * width, to_k + own, 4 * width, False)
            multiply(keys, width, rows, scratch, LINE, 4, to_out, 4 * width, to_v + own, 4 * width, False)


# Plans of attention: the queries of a row of documents that go together, as the kernels read them (kernels/packed_attention.py), in all
# layers.


Integers = npt.NDArray[np.int64]
# Least queries at a time, of a document that has as many: larger blocks waste more on the upper triangle, smaller ones read keys more
# often.
BLOCK = 32


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBlock:
    """Queries that are computed together."""

    queries: slice  # places of these queries among all N
    keys: tuple[slice, ...]  # tokens of the row that any of these queries sees, ascending
    hidden: npt.NDArray[np.bool_] | None  # [queries, last columns]: which of the last keys each query must not see; None = it sees all


class AttentionPlan:
    """Blocks of a row, also in the form that the kernels read."""

    def __init__(self, blocks: Sequence[AttentionBlock]) -> None:
        self.blocks = tuple(blocks)
        self._tasks: dict[tuple[int, int], list[Integers]] = {}
        self._runs: Integers | None = None

    def records(self) -> tuple[Integers, Integers]:
        """Blocks and runs (see kernels/packed_attention.py)."""
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
                for start in range(keys.start, keys.stop, RUN):
                    count = min(RUN, keys.stop - start)
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
