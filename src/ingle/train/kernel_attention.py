"""Attention in blocks by our own kernels (kernels/packed_attention.py), on CPUs, for float32 and bfloat16; everything between is float32.

A plan says, for a row of documents, which queries are computed together and what they see; it holds for all layers of a step. Its tasks
are dealt out to as many threads as PyTorch uses. Each thread sums the gradients of keys and values by itself, and these sums are added
in order, so the same number of threads gives the same bits.

Shapes: T tokens in the row, N queries, G groups, R query heads a group, D head_dim.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.kernels import packed_attention as at
from ingle.kernels.packed_attention import AttentionPlan
from ingle.train.team import run_team

KERNELS = ("packed_backward", "packed_forward", "turn_in", "turn_out")
"""Kernels that are called here."""


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
