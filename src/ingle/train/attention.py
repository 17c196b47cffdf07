"""Attention of documents that are packed into one row: none sees another, and nothing is padded.

Three implementations give the same. `EachAttention` asks PyTorch for one document after the other: the way on a GPU. `BlockAttention`
takes blocks of queries of all heads of a group at once, and never holds the scores of twice BLOCK queries. In float32 and bfloat16 it
uses our own kernels (`kernel_attention.py`), else their naive reference, PyTorch's matrix products. It keeps one or two numbers a query
for the backward pass (FlashAttention-2, arXiv 2307.08691). `bench/attention.py` measures all three.

Shapes: T tokens in the row, N queries (T, or those wanted), G groups, R query heads a group, D head_dim.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.kernels.packed_attention import AttentionBlock, AttentionPlan, pieces
from ingle.model.module_parts import Attend, turn, visible
from ingle.train.kernel_attention import KernelBlocks, fits

_LOG2_E = 1 / math.log(2)


def attend_on(device: torch.device, bounds: Sequence[int], wanted: Tensor | None = None) -> Attend:
    """The faster attention on this device. `bounds`: where each document begins, and T; `wanted`: tokens to be asked for, ascending."""
    return (BlockAttention if device.type == "cpu" else EachAttention)(tuple(bounds), wanted)


class EachAttention:
    """Attention by PyTorch's own function, one document after the other."""

    def __init__(self, bounds: tuple[int, ...], wanted: Tensor | None = None) -> None:
        self._documents = _documents(bounds, wanted)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        groups, repeats = k.shape[1], q.shape[1] // k.shape[1]
        streaming, out = set(spec.streaming(groups)), []
        for whole, rows, positions in self._documents:
            rows, positions = (rows, positions) if some else (whole, torch.arange(whole.stop - whole.start))
            places = positions.to(q.device)
            qs = turn(q[rows].transpose(0, 1), cos[whole][places], sin[whole][places])  # (heads, n, D)
            ks, vs = turn(k[whole].transpose(0, 1), cos[whole], sin[whole]), v[whole].transpose(0, 1)
            windowed = streaming if spec.window else set()
            masks = [visible(positions, torch.arange(ks.shape[1]), spec if g in windowed else None) for g in range(groups)]
            mask = torch.stack(masks).repeat_interleave(repeats, 0).to(q.device)
            ks, vs = (t.repeat_interleave(repeats, 0) for t in (ks, vs))
            plain = not some and not streaming
            y = torch.nn.functional.scaled_dot_product_attention(
                qs[None], ks[None], vs[None], attn_mask=None if plain else mask[None], is_causal=plain
            )
            out.append(y[0].transpose(0, 1))
        seen = torch.cat(out)
        if spec.window or not streaming:
            return seen
        return seen * torch.tensor([g not in streaming for g in range(groups)]).repeat_interleave(repeats).to(q)[:, None]


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
            for whole, rows, positions in _documents(self._bounds, self._wanted):
                rows, positions = (rows, positions) if some else (whole, torch.arange(whole.stop - whole.start))
                for piece in pieces(len(positions)):
                    queries = slice(rows.start + piece.start, rows.start + piece.stop)
                    blocks.append(_block(queries, positions[piece], whole.start, window, sinks))
            self._plans[key] = AttentionPlan(blocks)
        return self._plans[key]


def _documents(bounds: Sequence[int], wanted: Tensor | None) -> list[tuple[slice, slice, Tensor]]:
    """For each document: its tokens, its wanted tokens among all wanted, and their positions in it."""
    documents = []
    for start, stop in pairwise(bounds):
        if wanted is None:
            rows, positions = slice(start, stop), torch.arange(stop - start)
        else:
            first, last = (int(torch.searchsorted(wanted, edge)) for edge in (start, stop))
            rows, positions = slice(first, last), wanted[first:last].cpu() - start
        documents.append((slice(start, stop), rows, positions))
    return documents


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
