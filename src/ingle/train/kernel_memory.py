"""Recurrent memories of packed documents by our own kernels (kernels/packed_memory.py), on CPUs, for float32 and bfloat16; everything
between is float32. The naive reference is `Memory.packed`.

A document and a group are one task, dealt out to as many threads as PyTorch uses; each is computed by one thread from beginning to end,
and gradients of parameters are summed document by document, so any number of threads gives the same bits.

Shapes: T tokens in the row, N that enter, of all documents; G groups, R query heads a group, D head_dim.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.kernels import packed_memory as at
from ingle.kernels.packed_attention import deal
from ingle.model.module_parts import Entering, RecurrentMemory
from ingle.train.kernel_attention import fits
from ingle.train.team import run_team

KERNELS = ("memory_backward", "memory_forward")
"""Kernels that are called here, beside attention's."""
_OUTSIDE = {"RAW_Q", "RAW_K", "RAW_V", "SEEN", "GIVEN", "TO_GIVEN", "TO_RAW_Q", "TO_RAW_K", "TO_RAW_V", "TO_SEEN"}
"""Fields in the model's own type."""
_ROWS, _STRENGTHS = ("SEEN", "RAW_Q", "RAW_K", "RAW_V"), ("DECAY", "WRITE")
_PARAMETERS = ("MAP_Q", "MAP_K", "GATE", "GATE_BIAS", "AGE")


def read_packed(memory: RecurrentMemory, window: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec, bounds: Sequence[int]) -> Tensor:
    """Read the memories of packed documents, the faster way on this device; see `Memory.packed`."""
    entering = Entering.among(bounds, spec, q.device)
    if not fits(q) or not len(entering.tokens):
        return memory.packed(window, q, k, v, spec, bounds)
    decay, write = (part.index_select(0, entering.tokens) for part in memory.strengths(k.float(), v.float()))
    parameters = memory.q_map.weight, memory.k_map.weight, memory.gate.weight, memory.gate.bias, memory.age
    read: Tensor = KernelMemory.apply(entering, spec.window, window, q, k, v, decay, write, *parameters)  # type: ignore[no-untyped-call]
    return read


class KernelMemory(torch.autograd.Function):
    """Memories by our kernels. Inputs: tokens that enter, the window's width; by row: what the window gave and q [T, G, R, D], k and v
    [T, G, D]; log α and β [N, G]; maps [G · D, D], gates [G · R, D] and [G · R], ages [G · R]. Output [T, G, R, D]."""

    @staticmethod
    def forward(ctx: Any, entering: Entering, width: int, *tensors: Tensor) -> Tensor:
        inputs = dict(zip(_ROWS + _STRENGTHS + _PARAMETERS, tensors, strict=True))
        call = _Call(entering, inputs["RAW_Q"], width)
        arguments, read = call.arguments(inputs), inputs["SEEN"].clone(memory_format=torch.contiguous_format)
        call.run("memory_forward", {**arguments, "GIVEN": read})
        ctx.call, ctx.names = call, tuple(arguments)
        ctx.save_for_backward(*arguments.values(), *(inputs[name] for name in _PARAMETERS))
        return read

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, g = ctx.saved_tensors, grads[0].contiguous()
        arguments, parameters = dict(zip(ctx.names, saved, strict=False)), saved[len(ctx.names) :]
        slopes = {"TO_SEEN": g.clone(), **{f"TO_{name}": torch.zeros_like(arguments[name]) for name in _ROWS[1:]}}
        slopes |= {f"TO_{name}": torch.empty_like(arguments[name]) for name in _STRENGTHS}
        count = len(ctx.call.documents)
        sums = {f"TO_{name}": torch.zeros(count, *one.shape) for name, one in zip(_PARAMETERS, parameters, strict=True)}
        ctx.call.run("memory_backward", {**arguments, **slopes, **sums, "TO_GIVEN": g})
        *rows, to_decay, to_write = slopes.values()
        whole = (each.sum(0).to(one.dtype) for each, one in zip(sums.values(), parameters, strict=True))
        return None, None, *rows, to_decay.T, to_write.T, *whole


class _Call:
    """One call of the kernels for a row of documents: the tasks of each thread, sizes, and how much scratch they take."""

    def __init__(self, entering: Entering, q: Tensor, width: int) -> None:
        (_, self._groups, self._repeats, self._dim), lengths = q.shape, entering.lengths
        chunks = np.cumsum([0, *(-(-length // at.CHUNK) for length in lengths)])
        rows = zip(entering.edges, lengths, chunks, entering.tokens[list(entering.edges[:-1])].tolist(), strict=False)
        self.documents, self._tasks = np.array(list(rows), np.int64), deal(lengths, self._groups, torch.get_num_threads())
        self._tokens, self._chunks, self._outside, self._held = len(entering.tokens), int(chunks[-1]), q.dtype, entering.held(width)
        self._rooms = at.rooms(self._dim, self._repeats)
        self._record = np.zeros(len(at.FIELDS) + len(self._rooms), np.int64)
        sizes = {
            at.DIM: self._dim, at.GROUPS: self._groups, at.REPEATS: self._repeats, at.TOKENS: self._tokens, at.CHUNKS: self._chunks,
            at.WINDOW: width, at.ELEMENT: q.element_size(), at.DOCUMENTS: self.documents.ctypes.data,
        }  # fmt: skip
        self._record[list(sizes)] = list(sizes.values())
        self._record[len(at.FIELDS) :] = 4 * np.cumsum([0, *self._rooms[:-1]])

    def arguments(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs as the kernels read them, and buffers for what the backward pass needs, by field."""
        groups, tokens, repeats, dim = self._groups, self._tokens, self._repeats, self._dim
        maps = {name: inputs[name].float().view(groups, dim, dim) for name in ("MAP_Q", "MAP_K")}
        turned = {f"{name}_T": mapping.mT for name, mapping in maps.items()} | {name: inputs[name].T for name in _STRENGTHS}
        tensors = {**inputs, **maps, **turned, **{name: inputs[name].float() for name in _PARAMETERS[2:]}}
        tensors["HELD"] = self._held
        shapes: dict[str, tuple[int, ...]] = {
            "Q": (tokens, repeats, dim), "K": (tokens, dim), "V": (tokens, dim), "SCALE_Q": (tokens, repeats), "SCALE_K": (tokens,),
            "SHARE": (tokens, repeats), "Y": (tokens, repeats, dim), "STATES": (self._chunks, dim, dim), "SOLVED": (tokens, 2 * dim),
        }  # fmt: skip
        rooms = {name: torch.empty(groups, *shape) for name, shape in shapes.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()} | rooms

    def run(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Run a kernel on all tasks."""
        record = self._record.copy()
        for field, tensor in tensors.items():
            assert tensor.is_contiguous() and tensor.dtype == (self._outside if field in _OUTSIDE else torch.float32), field
            record[at.FIELDS.index(field)] = tensor.data_ptr()
        scratch = torch.empty(len(self._tasks), sum(self._rooms))
        threads = zip(self._tasks, scratch, strict=True)
        run_team(name, [[record.ctypes.data, some.ctypes.data, len(some), room.data_ptr()] for some, room in threads])
