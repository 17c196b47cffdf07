"""The decoder in PyTorch, for learning and as the oracle of the kernels. Parameter names are Hugging Face's, to the letter.

Sequences are read with a cache (B of equal length), or packed: documents of any length on end in one row of T tokens, for training.

Shapes: B sequences of equal length, T new tokens, K keys, G key-value groups, R query heads a group, D head_dim, V vocabulary.
A query at position q sees the key at p if p <= q and, in a streaming group, p > q - window or p < sinks. Keys are turned by RoPE at
their absolute position before they are kept. Group g serves query heads g*R … g*R + R - 1.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ingle.core.errors import CannotRewind, ConfigError, ShapeError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.model.checkpoint import Checkpoint
from ingle.model.rope import inverse_frequencies


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Keys and values of one kind of group in one layer: [B, groups, K, D] each, and the K positions. Never written in place."""

    keys: Tensor
    values: Tensor
    positions: Tensor

    def keep(self, wanted: Tensor) -> "Held":
        """Those at the places where `wanted` (bool [K]) holds."""
        if wanted.all():
            return self
        at = wanted.to(self.keys.device)
        return Held(self.keys[:, :, at], self.values[:, :, at], self.positions[wanted])


@dataclass(eq=False)
class Cache:
    """What a sequence needs to go on: all keys and values of retrieval groups; of streaming groups the sinks, the window before the
    last call, and what that call added.
    """

    length: int = 0
    """Tokens read so far."""
    held: dict[tuple[int, bool], Held] = field(default_factory=dict)
    """By layer and whether the groups are streaming ones."""
    earliest_rewind: int = 0
    """The smallest length above 0 that `rewind` accepts."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(h.keys.nbytes + h.values.nbytes for h in self.held.values())

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Identity and bytes of each tensor; forks share them until one of them moves on."""
        for h in self.held.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in (h.keys, h.values))

    def fork(self) -> "Cache":
        """A cache that goes its own way from here; tensors are shared until one of them moves on."""
        return replace(self, held=dict(self.held))

    def rewind(self, length: int) -> None:
        """Goes back to the first `length` tokens. Raises CannotRewind where a window no longer holds what that would need."""
        if not 0 <= length <= self.length:
            raise CannotRewind("length", f"must be between 0 and {self.length}", length)
        if 0 < length < self.earliest_rewind:
            cure = "Read the prompt again from a fork."
            raise CannotRewind("length", f"this cache can go back to {self.earliest_rewind} at the earliest", length, cure)
        self.held = {place: h.keep(h.positions < length) for place, h in self.held.items()} if length else {}
        self.length, self.earliest_rewind = length, min(self.earliest_rewind, length)

    def extend(self, layer: int, spec: LayerSpec | None, keys: Tensor, values: Tensor) -> Held:
        """Keys and values [B, groups, T, D] after those before them; `spec` is the layer's if the groups are streaming ones."""
        place = (layer, spec is not None)
        new = Held(keys, values, torch.arange(self.length, self.length + keys.shape[2]))
        before = self.held.get(place)
        if before is not None and spec is not None:
            oldest = self.length - spec.window + 1
            before = before.keep((before.positions >= oldest) | (before.positions < spec.sinks))
            if oldest > spec.sinks:  # something between the sinks and the window is gone for good
                self.earliest_rewind = self.length
        if before is not None:
            joined = [torch.cat(pair, 2) for pair in ((before.keys, keys), (before.values, values))]
            new = Held(joined[0], joined[1], torch.cat((before.positions, new.positions)))
        self.held[place] = new
        return new


class Attend(Protocol):
    """Attention of documents that are packed into one row, for one layer."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """q [N, heads, D], k and v [T, G, D], none of them turned yet; cos and sin [T, D] → [N, heads, D].

        `some`: the queries are those of the `wanted` tokens only.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Documents on end in one row; none sees another."""

    attend: Attend
    """Knows where each document begins."""
    wanted: Tensor | None = None
    """int [N]: the tokens whose states the last layer is to give; None = all. It computes keys and values only for the others."""


class RMSNorm(nn.Module):
    """x / rms(x) · weight, the mean square in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] → the same."""
        y: Tensor = _Normed.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y


class Attention(nn.Module):
    """Grouped-query attention with retrieval and streaming groups."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.config, self.index, self.spec = config, index, config.layers[index]
        self.last = index == len(config.layers) - 1
        if self.spec.memory != "none":
            raise ConfigError(f"layers[{index}].memory", "comes with hybridize, not yet here", self.spec.memory)
        hidden, queries, keys = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(hidden, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, hidden, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(config.head_dim, config.norm_eps), RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Cache | Packed | None) -> Tensor:
        """[B, T, hidden] → the same; packed: [T, hidden] → [T or N, hidden]; cos, sin [T, D]."""
        if isinstance(past, Packed):
            return self._packed(x, cos, sin, past)
        cache, (batch, steps, _) = past, x.shape
        groups, repeats, width = self.config.num_kv_heads, self.config.queries_per_group, self.config.head_dim
        q = self.q_proj(x).view(batch, steps, groups * repeats, width)
        k = self.k_proj(x).view(batch, steps, groups, width)
        v = self.v_proj(x).view(batch, steps, groups, width).transpose(1, 2)  # (B, G, T, D)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = turn(q.transpose(1, 2), cos, sin), turn(k.transpose(1, 2), cos, sin)
        q = q.view(batch, groups, repeats, steps, width)
        outs, order = [], []
        for spec, chosen in self._kinds():
            whole = len(chosen) == groups
            qs, ks, vs = (q, k, v) if whole else (q[:, chosen], k[:, chosen], v[:, chosen])
            outs.append(self._attend(qs, ks, vs, spec, cache))
            order += chosen
        y = outs[0] if len(outs) == 1 else torch.cat(outs, 1)[:, torch.tensor(order).argsort()]  # (B, G, R, T, D)
        out: Tensor = self.o_proj(y.permute(0, 3, 1, 2, 4).reshape(batch, steps, groups * repeats * width))
        return out

    def _packed(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        some = self.last and packed.wanted is not None
        q = self.q_proj(x[packed.wanted] if some else x).unflatten(-1, (-1, self.config.head_dim))
        k, v = (project(x).unflatten(-1, (-1, self.config.head_dim)) for project in (self.k_proj, self.v_proj))
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out: Tensor = self.o_proj(packed.attend(q, k, v, cos, sin, self.spec, some).flatten(1))
        return out

    def _kinds(self) -> Iterator[tuple[LayerSpec | None, list[int]]]:
        """Retrieval groups (without a spec), then streaming groups (with it)."""
        streaming = list(self.spec.streaming(self.config.num_kv_heads))
        if self.spec.retrieval:
            yield None, list(self.spec.retrieval)
        if streaming:
            yield self.spec, streaming

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, spec: LayerSpec | None, cache: Cache | None) -> Tensor:
        """q [B, g, R, T, D], k and v [B, g, T, D] of one kind of groups → [B, g, R, T, D]."""
        batch, groups, repeats, steps, width = q.shape
        start = cache.length if cache is not None else 0
        held = cache.extend(self.index, spec, k, v) if cache is not None else Held(k, v, torch.arange(steps))
        k, v = (t[:, :, None].expand(-1, -1, repeats, -1, -1).reshape(batch, groups * repeats, -1, width) for t in (held.keys, held.values))
        mask, causal = None, False
        if spec is None and start == 0:
            causal = True
        elif spec is not None or steps > 1:
            mask = visible(torch.arange(start, start + steps), held.positions, spec).to(q.device)
        q = q.reshape(batch, groups * repeats, steps, width)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return y.view(batch, groups, repeats, steps, width)


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] → the same."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        product = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
        gate, up = gate.detach(), up.detach()
        with made_again(product, lambda: nn.functional.silu(gate) * up):
            y: Tensor = self.down_proj(product)
        return y


class Layer(nn.Module):
    """Attention and MLP, each after a norm, each added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.last = index == len(config.layers) - 1
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Cache | Packed | None) -> Tensor:
        """[B, T, hidden] → the same; packed: [T, hidden] → the same, or [N, hidden] where the last layer is asked for N tokens."""
        seen = self.self_attn(self.input_layernorm(x), cos, sin, past)
        if self.last and isinstance(past, Packed) and past.wanted is not None:
            x = x[past.wanted]
        x = x + seen
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Decoder(nn.Module):
    """Embedding, layers and final norm, under the names of Hugging Face's `model.`"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(len(config.layers)))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class CausalLM(nn.Module):
    """A language model of any `ModelConfig` without recurrent memory. Raises ConfigError for one with it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        frequencies, self.rope_scale = inverse_frequencies(config)
        self.frequencies = torch.from_numpy(frequencies)  # no buffer: neither meta devices nor dtypes may touch it

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """ids int [B, T] → logits [B, T, V]. A cache is read and moved on by T tokens."""
        return self.logits(self.hidden(ids, cache))

    def hidden(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """ids int [B, T] → the stream after the final norm, [B, T, hidden]. Raises ShapeError for ids of another shape."""
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ShapeError("ids", "must have shape (sequences, tokens), with at least one token", tuple(ids.shape))
        x = self.model.embed_tokens(ids)
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device, dtype=torch.float32)
        cos, sin = self.angles(positions, x.dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin, cache)
        if cache is not None:
            cache.length += ids.shape[1]
        y: Tensor = self.model.norm(x)
        return y

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin [T, D] by which RoPE turns at these positions (float32 [T])."""
        angles = positions[:, None] * self.frequencies.to(positions.device)
        cos, sin = (torch.cat((t, t), -1).mul(self.rope_scale).to(dtype) for t in (angles.cos(), angles.sin()))
        return cos, sin

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] → [..., V]."""
        y: Tensor = self.lm_head(hidden)
        return y


def load_module(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: str = "cpu") -> CausalLM:
    """The module with a checkpoint's weights, in eval mode. Each tensor is decoded by itself, so nothing is held twice."""
    with torch.device("meta"):
        module = CausalLM(checkpoint.config)
    for name in checkpoint.names:
        owner, _, part = name.rpartition(".")
        weight = torch.from_numpy(checkpoint.tensor(name).to_float32()).to(device=device, dtype=dtype)
        setattr(module.get_submodule(owner), part, nn.Parameter(weight))
    if checkpoint.config.tie_embeddings:
        module.lm_head.weight = module.model.embed_tokens.weight
    return module.eval()


class _Normed(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a row for the way back, where autograd would keep five tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed, [g] = x * scale, grads
        inner = (g * weight).float()
        to_x = ((inner - normed * (inner * normed).mean(-1, keepdim=True)) * scale).to(x.dtype)
        to_weight = (g * normed).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


class _Gated(torch.autograd.Function):
    """silu(gate) · up, keeping gate and up only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (gate, up), [g] = ctx.saved_tensors, grads
        return torch.ops.aten.silu_backward(g * up, gate), nn.functional.silu(gate).mul_(g)


@contextlib.contextmanager
def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """What autograd would keep of this contiguous tensor in the block, it makes again on the way back: less memory, for a walk over it."""
    place, size = tensor.data_ptr(), tensor.numel()

    def pack(kept: Tensor) -> Tensor | torch.Size:
        return kept.shape if kept.data_ptr() == place and kept.numel() == size else kept

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else make().view(packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on [..., T, D]: the pair (i, i + D/2) turns by its angle."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def visible(queries: Tensor, keys: Tensor, spec: LayerSpec | None) -> Tensor:
    """Which key positions [K] each query position [T] sees: bool [T, K]; `spec` for streaming groups."""
    q, p = queries[:, None], keys[None]
    seen = p <= q
    if spec is not None:
        seen &= (p > q - spec.window) | (p < spec.sinks)
    return seen
