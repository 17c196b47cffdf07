"""Attention in blocks by our own kernels (kernels/packed.py), on CPUs, for float32 and bfloat16; everything between is float32.

A plan says, for a row of documents, which queries are computed together and what they see; it holds for all layers of a step. Its tasks
are dealt out to as many threads as PyTorch uses. Each thread sums the gradients of keys and values by itself, and these sums are added
in order, so the same number of threads gives the same bits.

Shapes: T tokens in the row, N queries, G groups, R query heads a group, D head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.kernels import packed as at
from ingle.train.team import run_team

KERNELS = ("packed_backward", "packed_forward", "turn_in", "turn_out")
"""Kernels that are called here."""
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBlock:
    """Queries that are computed together."""

    queries: slice
    """Places of these queries among all N."""
    keys: tuple[slice, ...]
    """Tokens of the row that any of these queries sees, ascending."""
    hidden: Tensor | None
    """bool [queries, 1, last columns]: which of the last keys each query must not see; None = it sees all."""


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
        bias[:, seen - first : count - first][block.hidden[:, 0, low : low + count - seen].numpy()] = -np.inf
    return bias


def fits(q: Tensor) -> bool:
    """Whether the kernels can compute with queries like these, [..., D]."""
    return q.dtype in (torch.float32, torch.bfloat16) and fits_heads(q.device, q.shape[-1])


def fits_heads(device: torch.device, dim: int) -> bool:
    """Whether the kernels can compute with heads of this size there: they are given addresses, which only a CPU can follow."""
    return device.type == "cpu" and dim % 32 == 0


class KernelBlocks(torch.autograd.Function):
    """Attention by our kernels: q [N, g, R, D], k and v [T, g, D], unturned → [N, g, R, D]; D a multiple of 32.

    Keeps its inputs, its output, and two numbers a query.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, rows: Tensor | None, plan: AttentionPlan) -> Tensor:
        cos, sin = cos.float().contiguous(), sin.float().contiguous()
        call = _Call(q, k, v, cos, sin, rows, plan)
        out, sums = torch.empty_like(call.tensors["Q"]), torch.empty(*call.tensors["Q"].shape[:3], 2)
        call.run("packed_forward", {"OUT": out, "SUMS": sums})
        result = torch.empty(q.shape, dtype=q.dtype)
        _turn("turn_out", result, out)
        ctx.save_for_backward(q, k, v, result, sums, cos, sin, rows)
        ctx.plan = plan
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, out, sums, cos, sin, rows), [g] = ctx.saved_tensors, grads
        call = _Call(q, k, v, cos, sin, rows, ctx.plan)
        inner = (g * out).sum(-1, dtype=torch.float32).transpose(0, 1).contiguous()
        to_out, wide_q = (torch.empty_like(call.tensors["Q"]) for _ in range(2))
        _turn("turn_in", g, to_out)
        wide_k, wide_v = call.run("packed_backward", {"SUMS": sums, "INNER": inner, "TO_OUT": to_out, "TO_Q": wide_q})
        to_q, to_k, to_v = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        cos_q, sin_q, cos_k, sin_k = call.angles
        _turn("turn_out", to_q, wide_q, (cos_q, -sin_q))
        _turn("turn_out", to_k[:, :, None], wide_k, (cos_k, -sin_k))
        _turn("turn_out", to_v[:, :, None], wide_v)
        return to_q, to_k, to_v, None, None, None, None


class _Call:
    """Arguments of the kernels: q, k and v in their layout, turned, k scaled by 1 / √D, and the plan."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, rows: Tensor | None, plan: AttentionPlan) -> None:
        self._plan, self._threads, dim = plan, torch.get_num_threads(), q.shape[-1]
        cos_q, sin_q = (cos, sin) if rows is None else (cos[rows], sin[rows])
        self.angles = cos_q, sin_q, cos * dim**-0.5, sin * dim**-0.5
        wide_q = torch.empty(q.shape[1], len(q), *q.shape[2:])
        wide_k, wide_v = (torch.empty(k.shape[1], len(k), dim) for _ in range(2))
        _turn("turn_in", q, wide_q, self.angles[:2])
        _turn("turn_in", k[:, :, None], wide_k, self.angles[2:])
        _turn("turn_in", v[:, :, None], wide_v)
        self.tensors = {"Q": wide_q, "K": wide_k, "V": wide_v, "K_TRANSPOSED": _transposed(wide_k), "V_TRANSPOSED": _transposed(wide_v)}

    def run(self, name: str, more: dict[str, Tensor]) -> Tensor:
        """Run a kernel on all tasks. The backward one returns gradients at k and v as each thread has them, [2, threads, g, T, D]."""
        tensors, (blocks, runs) = self.tensors | more, self._plan.records()
        groups, queries, repeats, width = tensors["Q"].shape
        record = np.zeros(len(at.FIELDS), np.int64)
        record[[at.WIDTH, at.REPEATS, at.QUERIES, at.TOKENS]] = width, repeats, queries, tensors["K"].shape[1]
        record[[at.TRANSPOSED_LINE, at.BLOCKS, at.RUNS]] = tensors["K_TRANSPOSED"].shape[-1], blocks.ctypes.data, runs.ctypes.data
        for field, tensor in tensors.items():
            assert tensor.is_contiguous() and tensor.dtype == torch.float32, field
            record[at.FIELDS.index(field)] = tensor.data_ptr()
        tasks = self._plan.tasks(groups, self._threads)
        scratch = torch.empty(self._threads, at.scratch_floats(self._plan.most_queries * repeats))
        slopes = torch.zeros(2, self._threads, *tensors["K"].shape) if name == "packed_backward" else torch.empty(0, self._threads)
        run_team(
            name,
            [
                [record.ctypes.data, some.ctypes.data, len(some), room.data_ptr(), *(part[thread].data_ptr() for part in slopes)]
                for thread, (some, room) in enumerate(zip(tasks, scratch, strict=True))
            ],
        )
        return slopes


def _turn(name: str, outside: Tensor, inside: Tensor, angles: tuple[Tensor, Tensor] | None = None) -> None:
    """Copy by `turn_in` or `turn_out` between [n, g, R, D] of any dtype here and float32 [g, n, R, D], or as many parts of it
    [parts, g, n, D] that are summed."""
    rows, groups, repeats, dim = outside.shape
    if outside.stride()[1:] != (repeats * dim, dim, 1):
        assert name == "turn_in", "what is written is contiguous"
        outside = outside.contiguous()
    parts = inside.numel() // outside.numel()
    record = np.array(
        [
            outside.data_ptr(), outside.stride(0) * outside.element_size(), outside.element_size(), rows, groups, repeats, dim,
            *(part.data_ptr() for part in angles or ()), *(() if angles else (0, 0)), inside.data_ptr(), parts, 4 * outside.numel(),
        ],
        np.int64,
    )  # fmt: skip
    threads = torch.get_num_threads()
    edges = [rows * i // threads for i in range(threads + 1)]
    run_team(name, [[record.ctypes.data, start, stop] for start, stop in pairwise(edges)])


def _transposed(x: Tensor) -> Tensor:
    """[g, T, D] → [g, D, T and padding that a kernel may read]; lines are no power of two long."""
    groups, tokens, dim = x.shape
    line = (tokens + 31) // 16 * 16
    out = torch.empty(groups, dim, line + 16 if line % 256 == 0 else line)
    out[..., :tokens], out[..., tokens:] = x.transpose(1, 2), 0
    return out
