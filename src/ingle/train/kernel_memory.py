"""Recurrent memories of packed documents by our own kernels (kernels/packed_memory.py), on CPUs; their twin is `ingle.model.memory`.

A document and a group are one task, dealt out to as many threads as PyTorch uses; each is computed by one thread from beginning to end,
so any number of threads gives the same bits.

Shapes: N tokens that enter, of all documents on end; G groups, R query heads a group, D head_dim.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.kernels import packed_memory as at
from ingle.model.memory import Features, walk_documents
from ingle.train.kernel_attention import deal, fits_heads, turn_rows
from ingle.train.team import run_team

KERNELS = ("memory_backward", "memory_forward")
"""What is called here, beside attention's."""


def walk_memories(told: Features, edges: Sequence[int]) -> Tensor:
    """`walk_documents`, by the faster way on this device."""
    if told.keys.dtype != torch.float32 or not fits_heads(told.keys.device, told.keys.shape[-1]):
        return walk_documents(told, edges)
    y: Tensor = KernelMemory.apply(told.queries, told.keys, told.values, told.decay, told.write, tuple(edges))  # type: ignore[no-untyped-call]
    return y


class KernelMemory(torch.autograd.Function):
    """queries [N, G, R, D], keys and values [N, G, D], log α and β [N, G], float32, where each document begins, and N → [N, G, R, D]."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, decay: Tensor, write: Tensor, edges: tuple[int, ...]
    ) -> Tensor:  # fmt: skip
        call = _Call(queries, keys, values, decay, write, edges)
        inside = torch.empty_like(call.tensors["Q"])
        call.run("memory_forward", {"Y": inside})
        ctx.call, ctx.shapes = call, (queries.shape, keys.shape)
        return _out(inside, queries.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        call, (of_queries, of_keys) = ctx.call, ctx.shapes
        slopes = {f"TO_{name}": torch.empty_like(call.tensors[name]) for name in ("Q", "K", "V", "DECAY", "WRITE")}
        call.run("memory_backward", {"TO_Y": _in(grads[0]), **slopes})
        to_q, to_k, to_v = (_out(slopes[f"TO_{name}"], shape) for name, shape in (("Q", of_queries), ("K", of_keys), ("V", of_keys)))
        return to_q, to_k, to_v, slopes["TO_DECAY"].T, slopes["TO_WRITE"].T, None


class _Call:
    """What the kernels are told, in their layout, and what the way back needs."""

    def __init__(
        self, queries: Tensor, keys: Tensor, values: Tensor, decay: Tensor, write: Tensor, edges: tuple[int, ...]
    ) -> None:  # fmt: skip
        tokens, groups, self._repeats, self._dim = queries.shape
        lengths = [stop - start for start, stop in pairwise(edges)]
        counts = [-(-length // at.CHUNK) for length in lengths]
        firsts = np.cumsum([0, *counts])
        self._documents = np.array([(edge, length, first) for edge, length, first in zip(edges, lengths, firsts, strict=False)], np.int64)
        self._tasks, self._chunks = deal(lengths, groups, torch.get_num_threads()), int(firsts[-1])
        self.tensors = {
            "Q": _in(queries), "K": _in(keys), "V": _in(values), "DECAY": decay.T.contiguous(), "WRITE": write.T.contiguous(),
            "STATES": torch.empty(groups, self._chunks, self._dim, self._dim), "SOLVED": torch.empty(groups, tokens, 2 * self._dim),
        }  # fmt: skip

    def run(self, name: str, more: dict[str, Tensor]) -> None:
        """Runs a kernel on all tasks."""
        rooms = at.rooms(self._dim, self._repeats)
        record = np.zeros(len(at.FIELDS) + len(rooms), np.int64)
        record[[at.DIM, at.REPEATS, at.TOKENS, at.CHUNKS]] = self._dim, self._repeats, self.tensors["K"].shape[1], self._chunks
        record[at.DOCUMENTS] = self._documents.ctypes.data
        record[len(at.FIELDS) :] = 4 * np.cumsum([0, *rooms[:-1]])
        for field, tensor in (self.tensors | more).items():
            assert tensor.is_contiguous() and tensor.dtype == torch.float32, field
            record[at.FIELDS.index(field)] = tensor.data_ptr()
        scratch = torch.empty(len(self._tasks), sum(rooms))
        run_team(
            name,
            [
                [record.ctypes.data, some.ctypes.data, len(some), room.data_ptr()]
                for some, room in zip(self._tasks, scratch, strict=True)
            ],
        )  # fmt: skip


def _in(x: Tensor) -> Tensor:
    """[N, G, …, D] → [G, N, …, D], contiguous."""
    wide = torch.empty(x.shape[1], len(x), *x.shape[2:])
    turn_rows("turn_in", _by_heads(x), _by_heads(wide))
    return wide


def _out(inside: Tensor, shape: torch.Size) -> Tensor:
    """[G, N, …, D] → [N, G, …, D]."""
    made = torch.empty(shape)
    turn_rows("turn_out", _by_heads(made), inside)
    return made


def _by_heads(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x[:, :, None]
