"""The tensors that a model with a config has: names, shapes, and the order of rows that RoPE wants."""

import numpy as np
import numpy.typing as npt

from ingle.core.spec import LayerSpec, ModelConfig

AGE = ".age"
"""Ending of the parameter for a memory's fill level. Older hybrids lack it; it is then 0."""


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a model with this config, in order: Hugging Face's name → (rows, columns) or (n,)."""
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    (first, second), (of_attention, of_mlp) = config.ways.norm_names
    for i, spec in enumerate(config.layers):
        layer = f"model.layers.{i}"
        shapes |= _norm(layer, first, hidden) | _MIXERS[spec.mixer](layer, config, spec)
        shapes |= _norm(layer, of_attention, hidden) | _norm(layer, second, hidden)
        shapes |= _inner(f"{layer}.mlp", config, i) | _norm(layer, of_mlp, hidden)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def row_order(config: ModelConfig, name: str, rows: int, heads: int | None) -> npt.NDArray[np.int64] | None:
    """Return where each row comes from in the file; None = the rows lie as we have them. `heads`: see `Checkpoint.interleaved`."""
    if (order := turned_order(config, name, rows)) is not None or heads is None:
        return order
    # llama.cpp's permutation: within a head, rows 2i and 2i+1 go to i and i + head_dim/2. Raw bytes are moved, so it is exact.
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def turned_order(config: ModelConfig, name: str, rows: int) -> npt.NDArray[np.int64] | None:
    """Return where each row of q, k or their norm comes from; None for another tensor, and where RoPE turns whole heads.

    RoPE turns the first `ways.turned` numbers of a head in pairs (i, i + turned/2): halves of them go to the beginnings of the head's
    halves, so that pairs are (i, i + head_dim/2), and what is not turned lies behind. Gates stay where they are.
    """
    dim, turned, part = config.head_dim, config.ways.turned, name.split(".")[-2]
    if not turned or part not in ("q_proj", "k_proj", "q_norm", "k_norm"):
        return None
    one, rest = np.arange(dim), np.arange(turned, dim)
    half = (dim - turned) // 2
    order = np.concatenate([one[: turned // 2], rest[:half], one[turned // 2 : turned], rest[half:]])
    if part == "q_proj" and config.ways.gated:
        order = np.concatenate([order, np.arange(dim, 2 * dim)])
    result: npt.NDArray[np.int64] = (np.arange(0, rows, len(order))[:, None] + order).reshape(-1)
    return result


def _attention(layer: str, config: ModelConfig, spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden = f"{layer}.self_attn", config.hidden_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    of_heads = {"q": queries, "k": keys} if config.ways.whole_norm else dict.fromkeys("qk", config.head_dim)
    shapes: dict[str, tuple[int, ...]] = {}
    for part, rows in (("q", queries * (1 + config.ways.gated)), ("k", keys), ("v", keys)):
        shapes |= _linear(f"{name}.{part}_proj", rows, hidden, config.qkv_bias)
    if config.qk_norm:
        shapes |= {f"{name}.{part}_norm.weight": (size,) for part, size in of_heads.items()}
    shapes |= _linear(f"{name}.o_proj", hidden, queries, config.output_bias)
    return shapes | _memory(f"{name}.memory", config, len(spec.remembering(config.num_kv_heads)))


def _convolution(layer: str, config: ModelConfig, _spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden, own = f"{layer}.conv", config.hidden_size, config.convolution
    assert own is not None, "ModelConfig checks it"
    taps: dict[str, tuple[int, ...]] = {f"{name}.conv.weight": (hidden, 1, own.length)}
    taps |= {f"{name}.conv.bias": (hidden,)} if own.bias else {}
    return taps | _linear(f"{name}.in_proj", 3 * hidden, hidden, own.bias) | _linear(f"{name}.out_proj", hidden, hidden, own.bias)


def _delta(layer: str, config: ModelConfig, _spec: LayerSpec) -> dict[str, tuple[int, ...]]:
    name, hidden, own = f"{layer}.linear_attn", config.hidden_size, config.delta
    assert own is not None, "ModelConfig checks it"
    heads, values = own.value_heads, own.value_heads * own.dim
    shapes: dict[str, tuple[int, ...]] = {f"{name}.dt_bias": (heads,), f"{name}.A_log": (heads,)}
    shapes[f"{name}.conv1d.weight"] = (own.channels, 1, own.length)
    shapes[f"{name}.norm.weight"] = (own.dim,)
    for part, rows in (("qkv", own.channels), ("z", values), ("b", heads), ("a", heads)):
        shapes |= _linear(f"{name}.in_proj_{part}", rows, hidden, False)
    return shapes | _linear(f"{name}.out_proj", hidden, values, False)


_MIXERS = {"attention": _attention, "convolution": _convolution, "delta": _delta}


def _inner(name: str, config: ModelConfig, index: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer's MLP or of its experts."""
    experts = config.experts_at(index)
    if experts is None:
        return _mlp(name, config.hidden_size, config.intermediate_size, config.mlp_bias)
    shapes = _linear(f"{name}.gate", experts.count, config.hidden_size, False)
    for number in range(experts.count):
        shapes |= _mlp(f"{name}.experts.{number}", config.hidden_size, experts.width, False)
    return shapes


def _mlp(name: str, hidden: int, width: int, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes = _linear(f"{name}.gate_proj", width, hidden, bias) | _linear(f"{name}.up_proj", width, hidden, bias)
    return shapes | _linear(f"{name}.down_proj", hidden, width, bias)


def _memory(name: str, config: ModelConfig, groups: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer's recurrent memories, one for each of so many groups, in order; see `model.memory`."""
    dim = config.head_dim
    maps: dict[str, tuple[int, ...]] = {f"{name}.{part}.weight": (groups * dim, dim) for part in ("q_map", "k_map")}
    for part, rows, columns in (("decay", groups, 2 * dim), ("write", groups, 2 * dim), ("gate", groups * config.queries_per_group, dim)):
        maps |= _linear(f"{name}.{part}", rows, columns, True)
    return maps | {name + AGE: (groups * config.queries_per_group,)} if groups else {}


def _norm(layer: str, name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.{name}.weight": (size,)} if name else {}


def _linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    return shapes | {f"{name}.bias": (rows,)} if bias else shapes
