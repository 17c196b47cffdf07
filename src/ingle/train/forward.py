"""Packed documents through a module on CPUs: our kernels for attention and memories, on PyTorch's own threads."""

import ctypes
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ingle.core.spec import LayerSpec
from ingle.kernels import packed_attention as at
from ingle.kernels import packed_memory as memory_at
from ingle.kernels.jit import build, kernel, stored, team_kernel
from ingle.kernels.packed_attention import AttentionBlock, AttentionPlan, deal, pieces
from ingle.model.module import CausalLM
from ingle.model.module_parts import Attend, EachAttention, Entering, PackedRows, RecurrentMemory, documents_of, turn, visible
from ingle.train.packing import Batch

# Calls of kernels on PyTorch's own threads.
#
# After each of its operations PyTorch's threads wait for the next one, for some milliseconds without giving up their cores. Threads of
# ours would have to share these cores and take twice as long. So the kernels run on PyTorch's threads, through the OpenMP library that it
# brings (libgomp). Where it brings another library, threads of ours are used after all.


def compile_ahead(names: Sequence[str], say: Callable[[str], object]) -> None:
    """Compile the kernels that no earlier run has compiled, all at once, and say so: it takes seconds. Raises KernelError."""
    missing = [name for name in names if stored(name) is None]
    if missing:
        say("compiling training's kernels for this machine, once")
        build(missing)


def run_team(name: str, calls: Sequence[Sequence[int]]) -> None:
    """Call a kernel with each of these arguments, all at once as far as there are threads.

    Raises KernelError where it can't be compiled.
    """
    library = _openmp()
    if library is None:
        work, (mine, *others) = kernel(name), calls
        waiting = [_pool(len(others)).submit(work, *arguments) for arguments in others]
        work(*mine)
        for one in waiting:
            one.result()
        return
    address, _alive = team_kernel(name)
    functions = [ctypes.cast(function, ctypes.c_void_p).value for function in (library.omp_get_thread_num, library.omp_get_num_threads)]
    data = np.array([*functions, len(calls), *(number for arguments in calls for number in arguments)], np.int64)
    library.GOMP_parallel(ctypes.c_void_p(address), ctypes.c_void_p(data.ctypes.data), len(calls), 0)


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library in PyTorch's folder, which PyTorch itself has loaded; None where it is not GNU's."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "GOMP_parallel"):
            library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            library.GOMP_parallel.restype = None
            return library
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads), "kernels")


# Attention in blocks by our own kernels (kernels/packed_attention.py), on CPUs, for float32 and bfloat16; everything between is float32.
# A plan says, for a row of documents, which queries are computed together and what they see; it holds for all layers of a step. Its tasks
# are dealt out to as many threads as PyTorch uses. Each thread sums the gradients of keys and values by itself, and these sums are added in
# order, so the same number of threads gives the same bits.
# Shapes: T tokens in the row, N queries, G groups, R query heads a group, D head_dim.


ATTENTION_KERNELS = ("packed_backward", "packed_forward", "turn_in", "turn_out")  # kernels that are called here


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
        call = _AttentionCall(q, k, v, cos, sin, rows, plan)
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
        call = _AttentionCall(q, k, v, cos, sin, rows, ctx.plan)
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


class _AttentionCall:
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


# Recurrent memories of packed documents by our own kernels (kernels/packed_memory.py), on CPUs, for float32 and bfloat16; everything
# between is float32. The naive reference is `Memory.packed`.
# A document and a group are one task, dealt out to as many threads as PyTorch uses; each is computed by one thread from beginning to end,
# and gradients of parameters are summed document by document, so any number of threads gives the same bits.
# Shapes: T tokens in the row, N that enter, of all documents; G groups, R query heads a group, D head_dim.


MEMORY_KERNELS = ("memory_backward", "memory_forward")  # kernels that are called here, beside attention's
# Fields in the model's own type.
_OUTSIDE = {"RAW_Q", "RAW_K", "RAW_V", "SEEN", "GIVEN", "TO_GIVEN", "TO_RAW_Q", "TO_RAW_K", "TO_RAW_V", "TO_SEEN"}
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
        call = _MemoryCall(entering, inputs["RAW_Q"], width)
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


class _MemoryCall:
    """One call of the kernels for a row of documents: the tasks of each thread, sizes, and how much scratch they take."""

    def __init__(self, entering: Entering, q: Tensor, width: int) -> None:
        (_, self._groups, self._repeats, self._dim), lengths = q.shape, entering.lengths
        chunks = np.cumsum([0, *(-(-length // memory_at.CHUNK) for length in lengths)])
        rows = zip(entering.edges, lengths, chunks, entering.tokens[list(entering.edges[:-1])].tolist(), strict=False)
        self.documents, self._tasks = np.array(list(rows), np.int64), deal(lengths, self._groups, torch.get_num_threads())
        self._tokens, self._chunks, self._outside, self._held = len(entering.tokens), int(chunks[-1]), q.dtype, entering.held(width)
        self._rooms = memory_at.rooms(self._dim, self._repeats)
        self._record = np.zeros(len(memory_at.FIELDS) + len(self._rooms), np.int64)
        sizes = {
            memory_at.DIM: self._dim, memory_at.GROUPS: self._groups, memory_at.REPEATS: self._repeats,
            memory_at.TOKENS: self._tokens, memory_at.CHUNKS: self._chunks,
            memory_at.WINDOW: width, memory_at.ELEMENT: q.element_size(), memory_at.DOCUMENTS: self.documents.ctypes.data,
        }  # fmt: skip
        self._record[list(sizes)] = list(sizes.values())
        self._record[len(memory_at.FIELDS) :] = 4 * np.cumsum([0, *self._rooms[:-1]])

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
            record[memory_at.FIELDS.index(field)] = tensor.data_ptr()
        scratch = torch.empty(len(self._tasks), sum(self._rooms))
        threads = zip(self._tasks, scratch, strict=True)
        run_team(name, [[record.ctypes.data, some.ctypes.data, len(some), room.data_ptr()] for some, room in threads])


# Attention of documents that are packed into one row: none sees another, and nothing is padded.
# Three implementations give the same. `EachAttention` (model/module_parts.py) asks PyTorch for one document after the other: the way on a
# GPU. `BlockAttention`
# takes blocks of queries of all heads of a group at once, and never holds the scores of twice BLOCK queries. In float32 and bfloat16 it
# uses our own kernels (`kernel_attention.py`), else their naive reference, PyTorch's matrix products. It keeps one or two numbers a query
# for the backward pass (FlashAttention-2, arXiv 2307.08691). `bench/attention.py` measures all three.
# Shapes: T tokens in the row, N queries (T, or those wanted), G groups, R query heads a group, D head_dim.


_LOG2_E = 1 / math.log(2)


def attend_on(device: torch.device, bounds: Sequence[int], wanted: Tensor | None = None) -> Attend:
    """The faster attention on this device. `bounds`: where each document begins, and T; `wanted`: tokens to be asked for, ascending."""
    return (BlockAttention if device.type == "cpu" else EachAttention)(tuple(bounds), wanted)


class BlockAttention:
    """Attention in blocks of queries, by our kernels or matrix products."""

    def __init__(self, bounds: tuple[int, ...], wanted: Tensor | None = None) -> None:
        self._bounds, self._wanted = bounds, wanted
        self._plans: dict[tuple[int, int, bool], AttentionPlan] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        groups, rows = k.shape[1], self._wanted if some else None
        q = q.view(len(q), groups, -1, q.shape[-1])  # (N, G, R, D)
        way = KernelBlocks if fits(q) else Blocks
        outs, order = [], []
        for window, sinks, chosen in _kinds(spec, groups):
            plan = self._plan(window, sinks, some)
            whole = len(chosen) == groups
            qs, ks, vs = (q, k, v) if whole else (q[:, chosen], k[:, chosen], v[:, chosen])
            outs.append(way.apply(qs, ks, vs, cos, sin, rows, plan))  # type: ignore[no-untyped-call]
            order += chosen
        if len(order) < groups:  # streaming groups without a window see nothing
            blind = [group for group in range(groups) if group not in order]
            outs.append(torch.zeros_like(q[:, blind]))
            order += blind
        y = outs[0] if len(outs) == 1 else torch.cat(outs, 1)[:, torch.tensor(order).argsort()]
        out: Tensor = y.flatten(1, 2)
        return out

    def _plan(self, window: int, sinks: int, some: bool) -> AttentionPlan:
        key = (window, sinks, some)
        if key not in self._plans:
            blocks: list[AttentionBlock] = []
            for whole, rows, positions in documents_of(self._bounds, self._wanted):
                rows, positions = (rows, positions) if some else (whole, torch.arange(whole.stop - whole.start))
                for piece in pieces(len(positions)):
                    queries = slice(rows.start + piece.start, rows.start + piece.stop)
                    blocks.append(_block(queries, positions[piece], whole.start, window, sinks))
            self._plans[key] = AttentionPlan(blocks)
        return self._plans[key]


def _kinds(spec: LayerSpec, groups: int) -> list[tuple[int, int, list[int]]]:
    """(window, sinks, groups) of the retrieval groups, whose window is 0, and of the streaming groups, if they have a window."""
    kinds = [(0, 0, list(spec.retrieval)), (spec.window, spec.sinks, list(spec.streaming(groups) if spec.window else ()))]
    return [kind for kind in kinds if kind[2]]


def _block(queries: slice, positions: Tensor, start: int, window: int, sinks: int) -> AttentionBlock:
    """A block of queries at these positions of the document that begins at `start`; window 0 = they see all before them."""
    first, last = int(positions[0]), int(positions[-1])
    low = max(0, first - window + 1) if window else 0
    spans = [(0, last + 1)] if low <= sinks else [(0, sinks), (low, last + 1)] if sinks else [(low, last + 1)]
    keys = tuple(slice(start + a, start + b) for a, b in spans)
    seen = torch.cat([torch.arange(a, b) for a, b in spans])
    certain = 0 if window else first + 1  # without a window, every query sees what the first one sees
    spec = LayerSpec((), window, sinks) if window else None
    mask = ~visible(positions, seen[certain:], spec)
    return AttentionBlock(queries, keys, mask.numpy() if mask.any() else None)


class Blocks(torch.autograd.Function):
    """Attention by matrix products: q [N, g, R, D], k and v [T, g, D], unturned → [N, g, R, D]. The naive reference of `KernelBlocks`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, rows: Tensor | None, plan: AttentionPlan) -> Tensor:
        cos_q, sin_q = (cos, sin) if rows is None else (cos[rows], sin[rows])
        turned_q = turn(q, cos_q[:, None, None], sin_q[:, None, None]).transpose(0, 1).contiguous()  # (g, N, R, D)
        turned_k = turn(k, cos[:, None], sin[:, None]).transpose(0, 1).contiguous()  # (g, T, D)
        vs = v.transpose(0, 1)
        out, base = torch.empty_like(q), torch.empty(turned_q.shape[:3], dtype=_wide(q.dtype))
        wide_q, wide_k = _wide_pair(turned_q, turned_k)
        for block in plan.blocks:
            scores = _scores(wide_q, wide_k, block)  # (g, n, R, keys)
            top = scores.amax(-1, keepdim=True)
            total = scores.sub_(top).exp2_().sum(-1, keepdim=True)
            y = torch.bmm(scores.flatten(1, 2).to(q.dtype), _rows(vs, block))
            out[block.queries] = (y.view(*scores.shape[:3], -1) / total).transpose(0, 1)
            base[:, block.queries] = (top + total.log2()).squeeze(-1)
        ctx.save_for_backward(turned_q, turned_k, v, out, base, cos, sin, rows)
        ctx.plan = plan
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (turned_q, turned_k, v, out, base, cos, sin, rows), [g] = ctx.saved_tensors, grads
        wide, vs = base.dtype, v.transpose(0, 1)
        to_q = torch.empty_like(turned_q)
        to_k, to_v = (torch.zeros(turned_k.shape, dtype=wide) for _ in range(2))
        inner = (g * out).sum(-1, dtype=wide).transpose(0, 1)  # (g, N, R)
        gs = g.transpose(0, 1)
        wide_q, wide_k = _wide_pair(turned_q, turned_k)
        for block in ctx.plan.blocks:
            chances = _scores(wide_q, wide_k, block).sub_(base[:, block.queries, :, None]).exp2_()
            shape = chances.shape
            to_y = gs[:, block.queries].flatten(1, 2)
            _add(to_v, block, torch.bmm(chances.flatten(1, 2).to(g.dtype).transpose(1, 2), to_y))
            to_chances = torch.bmm(to_y, _rows(vs, block).transpose(1, 2)).view(shape)
            to_scores = chances.mul_(to_chances - inner[:, block.queries, :, None]).flatten(1, 2).to(g.dtype)
            to_q[:, block.queries] = torch.bmm(to_scores, _rows(turned_k, block)).view(*shape[:3], -1)
            _add(to_k, block, torch.bmm(to_scores.transpose(1, 2), turned_q[:, block.queries].flatten(1, 2)))
        scale = turned_q.shape[-1] ** -0.5
        cos_q, sin_q = (cos, sin) if rows is None else (cos[rows], sin[rows])
        to_q = turn((to_q * scale).transpose(0, 1), cos_q[:, None, None], -sin_q[:, None, None])
        to_k = turn((to_k * scale).to(g.dtype).transpose(0, 1), cos[:, None], -sin[:, None])
        return to_q, to_k, to_v.to(g.dtype).transpose(0, 1), None, None, None, None


def _wide_pair(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least, q scaled so that its products with k are logarithms to base 2."""
    wide = _wide(q.dtype)
    return q.to(wide) * (_LOG2_E * q.shape[-1] ** -0.5), k.to(wide)


def _scores(q: Tensor, k: Tensor, block: AttentionBlock) -> Tensor:
    """Scores of a block: [g, n, R, keys], −inf where a query must not see a key."""
    chosen = q[:, block.queries]
    scores = torch.bmm(chosen.flatten(1, 2), _rows(k, block).transpose(1, 2))
    scores = scores.view(*chosen.shape[:3], -1)
    if block.hidden is not None:
        scores[..., -block.hidden.shape[-1] :].masked_fill_(torch.from_numpy(block.hidden)[:, None], -math.inf)
    return scores


def _rows(x: Tensor, block: AttentionBlock) -> Tensor:
    """Rows of [g, T, D] that are the block's keys."""
    return x[:, block.keys[0]] if len(block.keys) == 1 else torch.cat([x[:, keys] for keys in block.keys], 1)


def _add(total: Tensor, block: AttentionBlock, part: Tensor) -> None:
    """Adds [g, keys, D] where the block's keys lie in [g, T, D]."""
    start = 0
    for keys in block.keys:
        size = keys.stop - keys.start
        total[:, keys] += part[:, start : start + size]
        start += size


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


# A packed batch through a module, up to the states from which the loss is computed.
# Only what the loss depends on is computed: the last layer reads all tokens, but gives the states of those rows alone that predict
# something with a loss. Autograd keeps nothing of the layers below the first trained parameter.


def final_states(module: CausalLM, batch: Batch, first: int = 0, x: Tensor | None = None, recompute: bool = False) -> Tensor:
    """States after the final norm at `batch.rows`: [A, hidden].

    `x` [T, hidden]: the input of layer `first`, if that is known already. `recompute`: each layer keeps its input only and runs again in
    the backward pass (arXiv 1604.06174): a third more time, a fraction of the memory.
    """
    packed = PackedRows(attend_on(batch.ids.device, batch.edges, batch.rows), batch.edges, batch.rows, read_packed)
    if x is None:
        x = module.model.embed_tokens(batch.ids)
    cos, sin = module.angles(batch.positions, x.dtype)
    layers = module.model.layers[first:]
    for layer in layers:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(layer, x, cos, sin, packed, use_reentrant=False)
        else:
            x = layer(x, cos, sin, packed)
    if not len(layers):
        x = x[batch.rows]
    y: Tensor = module.model.norm(x)
    return y


@torch.no_grad()
def lower_states(module: CausalLM, ids: Tensor, layers: int, bounds: Sequence[int] | None = None) -> Tensor:
    """Inputs of layer number `layers`: [T, hidden], of one document, or of several on end."""
    bounds = bounds or (0, len(ids))
    x: Tensor = module.model.embed_tokens(ids)
    positions = torch.cat([torch.arange(b - a, device=ids.device, dtype=torch.float32) for a, b in pairwise(bounds)])
    cos, sin = module.angles(positions, x.dtype)
    packed = PackedRows(attend_on(ids.device, bounds), tuple(bounds), read=read_packed)
    for layer in module.model.layers[:layers]:
        x = layer(x, cos, sin, packed)
    return x


def first_trained_layer(module: CausalLM, names: Sequence[str]) -> int:
    """The lowest layer that holds one of these parameters; 0 if one lies below the layers, their number if all lie above."""
    prefix, lowest = "model.layers.", len(module.model.layers)
    for name in names:
        if name.startswith(prefix):
            lowest = min(lowest, int(name[len(prefix) :].split(".")[0]))
        elif not name.startswith(("model.norm.", "lm_head.")):
            return 0
    tied = module.lm_head.weight is module.model.embed_tokens.weight
    return 0 if tied and "lm_head.weight" in names else lowest
