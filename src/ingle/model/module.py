"""The decoder in PyTorch, for learning and as the kernels' reference. Parameter names are Hugging Face's, to the letter.

It reads documents of any length on end in one row of T tokens.

Shapes: B sequences of equal length, T tokens, of which N are wanted, G key-value groups, R query heads a group, D head_dim, V vocabulary.
A query at position q sees the key at p if p <= q and, in a streaming group, p > q - window or p < sinks. Keys are turned by RoPE at
their absolute position. Group g serves query heads g*R … g*R + R - 1.
"""

import torch
from torch import Tensor, nn

from ingle.core.errors import ShapeError
from ingle.core.headroom import Need, room_for
from ingle.core.spec import Experts, ModelConfig
from ingle.model.checkpoint import Checkpoint
from ingle.model.hf_config import all_frequencies
from ingle.model.module_parts import (
    ConvolutionMixer,
    DeltaMixer,
    Embedding,
    Gated,
    PackedRows,
    RecurrentMemory,
    RMSNorm,
    activated,
    made_again,
    rows_of,
)
from ingle.model.tensor import size_of


class Attention(nn.Module):
    """Grouped-query attention with retrieval and streaming groups, and the streaming groups' memories."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.config, self.index, self.spec = config, index, config.layers[index]
        self.last, self.rope = index == len(config.layers) - 1, config.rope_of(index)
        hidden, queries, keys = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(hidden, queries * (1 + config.ways.gated), bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, hidden, bias=config.output_bias)
        if config.qk_norm:
            sizes = (queries, keys) if config.ways.whole_norm else (config.head_dim,) * 2
            self.q_norm, self.k_norm = (RMSNorm(size, config.norm_eps) for size in sizes)
        remembering = len(self.spec.remembering(config.num_kv_heads))
        self.memory = RecurrentMemory(config, remembering) if remembering else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, packed: PackedRows) -> Tensor:
        """Attend: [T, hidden] → [T or N, hidden]; cos, sin [kinds, T, D]."""
        some = self.last and packed.wanted is not None
        asking = x[packed.wanted] if some else x
        (q, k, v), gate = self._projected(asking, x)
        q, k, v = (t.view(len(t), -1, self.config.head_dim) for t in (q, k, v))
        q, k = self._normed(q, k)
        y = packed.attend(q, k, v, cos[self.rope], sin[self.rope], self.spec, some)
        if self.memory is not None:
            y = self.remember(y, q, k, v, packed, some)
        return self._out(y.flatten(1), gate)

    def _projected(self, asking: Tensor, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """Return q of the rows that ask, k and v of all, [..., heads · D], after a norm that spans all heads, and the heads' gates."""
        q, k, v = self.q_proj(asking), self.k_proj(x), self.v_proj(x)
        gate = None
        if self.config.ways.gated:
            q, gate = (t.flatten(-2) for t in q.unflatten(-1, (-1, 2 * self.config.head_dim)).chunk(2, -1))
        if self.config.qk_norm and self.config.ways.whole_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v), gate

    def _out(self, y: Tensor, gate: Tensor | None) -> Tensor:
        """Return what the heads' outputs [..., heads · D] give: [..., hidden]."""
        out: Tensor = self.o_proj(y if gate is None else y * torch.sigmoid(gate))
        return out

    def _normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise each head by itself, and give queries the scale of this family's scores."""
        ways = self.config.ways
        if self.config.qk_norm and not ways.whole_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return q * (ways.attention_scale * self.config.head_dim**0.5) if ways.attention_scale else q, k

    def remember(self, y: Tensor, q: Tensor, k: Tensor, v: Tensor, packed: PackedRows, some: bool) -> Tensor:
        """Blend the streaming heads' view of their window, y [N, heads, D], with their memories."""
        assert self.memory is not None, "only layers with memories are asked"
        groups, repeats, chosen = self.config.num_kv_heads, self.config.queries_per_group, self.spec.remembering(self.config.num_kv_heads)
        whole, indices = len(chosen) == groups, torch.tensor(chosen, device=y.device)
        window, queries = (t.view(len(t), groups, repeats, -1) for t in (y, q))
        if not whole:
            window, queries, k, v = (t.index_select(1, indices) for t in (window, queries, k, v))
        rows = packed.wanted if some else None
        if rows is not None:
            window, queries = (t.new_zeros(len(k), *t.shape[1:]).index_copy(0, rows, t) for t in (window, queries))
        blended = packed.read(self.memory, window, queries, k, v, self.spec, packed.bounds)
        if rows is not None:
            blended = blended.index_select(0, rows)
        return (blended if whole else y.view(len(y), groups, repeats, -1).index_copy(1, indices, blended)).flatten(1, 2)


class MLP(nn.Module):
    """The gated MLP: down(activation(gate(x)) · up(x))."""

    def __init__(self, hidden: int, width: int, bias: bool, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj, self.up_proj = (nn.Linear(hidden, width, bias=bias) for _ in range(2))
        self.down_proj = nn.Linear(width, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: [..., hidden] → same shape."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        product = Gated.apply(gate, up, self.activation)  # type: ignore[no-untyped-call]
        gate, up = gate.detach(), up.detach()
        with made_again(product, lambda: activated(self.activation, gate) * up):
            y: Tensor = self.down_proj(product)
        return y


class Mixture(nn.Module):
    """A mixture of experts: each token's MLPs are those of the largest shares (arXiv 1701.06538)."""

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.chosen, self.normed = experts.chosen, experts.normed
        self.gate = nn.Linear(config.hidden_size, experts.count, bias=False)
        sizes = (config.hidden_size, experts.width, False, config.ways.activation)
        self.experts = nn.ModuleList(MLP(*sizes) for _ in range(experts.count))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: [..., hidden] → same shape."""
        rows = x.flatten(0, -2)
        shares, numbers = torch.softmax(self.gate(rows).float(), -1).topk(self.chosen, -1)
        if self.normed:
            shares = shares / shares.sum(-1, keepdim=True)
        y = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            asking, place = torch.where(numbers == number)
            if len(asking):
                y = y.index_add(0, asking, expert(rows[asking]) * shares[asking, place, None].to(rows.dtype))
        return y.view_as(x)


# Names of mixers in a layer, and their modules.
_MIXERS: dict[str, tuple[str, type[Attention | ConvolutionMixer | DeltaMixer]]] = {
    "attention": ("self_attn", Attention), "convolution": ("conv", ConvolutionMixer), "delta": ("linear_attn", DeltaMixer),
}  # fmt: skip


class DecoderLayer(nn.Module):
    """A mixer of tokens and an MLP, each between the norms of its family, added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.last, self.scale = index == len(config.layers) - 1, config.ways.residual_scale
        self.before, self.after = config.ways.norm_names
        self.mixer, make = _MIXERS[config.layers[index].mixer]
        setattr(self, self.mixer, make(config, index))
        experts, sizes = config.experts_at(index), (config.hidden_size, config.intermediate_size, config.mlp_bias, config.ways.activation)
        self.mlp: MLP | Mixture = MLP(*sizes) if experts is None else Mixture(config, experts)
        for name in filter(None, (*self.before, *self.after)):
            setattr(self, name, RMSNorm(config.hidden_size, config.norm_eps))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, packed: PackedRows) -> Tensor:
        """Apply it: [T, hidden] → same shape, or [N, hidden] for N tokens of the last layer."""
        attended = self._norm(self.after[0], getattr(self, self.mixer)(self._norm(self.before[0], x), cos, sin, packed))
        if self.last and packed.wanted is not None:
            x = x[packed.wanted]
        x = self._onto(x, attended)
        return self._onto(x, self._norm(self.after[1], self.mlp(self._norm(self.before[1], x))))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        y: Tensor = getattr(self, name)(x) if name else x
        return y

    def _onto(self, x: Tensor, y: Tensor) -> Tensor:
        return x + (y if self.scale == 1.0 else y * self.scale)


class Decoder(nn.Module):
    """Embedding, layers and final norm, with the names of Hugging Face's `model.`"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config.ways.embedding_scale)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(len(config.layers)))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps, config.ways.logit_scale)


class CausalLM(nn.Module):
    """A language model of any `ModelConfig`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        # No buffers: neither devices nor dtypes may touch them.
        self.turns = [(torch.from_numpy(frequencies), torch.from_numpy(scales)) for frequencies, scales in all_frequencies(config)]

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits: ids int [B, T] → [B, T, V]."""
        return self.logits(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        """Return the stream after the final norm: ids int [B, T] → [B, T, hidden].

        Raises ShapeError for ids of another shape.
        """
        if ids.ndim != 2 or ids.shape[1] == 0:
            raise ShapeError("ids", "must have shape (sequences, tokens), with at least one token", tuple(ids.shape))
        count, steps = ids.shape
        positions = torch.arange(steps, device=ids.device, dtype=torch.float32).repeat(count)
        y: Tensor = self.model.norm(self.read(ids.flatten(), positions, rows_of(count, steps)))
        return y.view(count, steps, -1)

    def read(self, ids: Tensor, positions: Tensor, packed: PackedRows) -> Tensor:
        """Return the stream above the last layer: ids int [T], positions float32 [T] → [T or N, hidden]."""
        x: Tensor = self.model.embed_tokens(ids)
        cos, sin = self.angles(positions, x.dtype)
        for layer in self.model.layers:
            x = layer(x, cos, sin, packed)
        return x

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin [kinds, T, D] of RoPE's angles at these positions (float32 [T]), for each of the config's `ropes`."""
        kinds = [(positions[:, None] * f.to(positions.device), scales.to(positions.device)) for f, scales in self.turns]
        cos, sin = (
            torch.stack([torch.cat((t, t), -1).to(dtype) for t in (of(angles).mul(scales) for angles, scales in kinds)])
            for of in (torch.cos, torch.sin)
        )
        return cos, sin

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits: [..., hidden] → [..., V]."""
        y: Tensor = self.lm_head(hidden)
        return y


def load_module(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: str = "cpu") -> CausalLM:
    """Return a module with a checkpoint's weights, in eval mode. Tensors are decoded one by one, so nothing is held twice.

    Raises NoRoom, before anything is held, where the machine hasn't so much memory.
    """
    if device == "cpu":
        room_for(Need("Loading this model", {"its weights": size_of(checkpoint.config).whole * dtype.itemsize})).check()
    with torch.device("meta"):
        module = CausalLM(checkpoint.config)
    for name in checkpoint.names:
        owner, _, part = name.rpartition(".")
        weight = torch.from_numpy(checkpoint.tensor(name).to_float32()).to(device=device, dtype=dtype)
        setattr(module.get_submodule(owner), part, nn.Parameter(weight))
    if checkpoint.config.tie_embeddings:
        module.lm_head.weight = module.model.embed_tokens.weight
    return module.eval()
