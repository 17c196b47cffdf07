"""The tensors that a model with a config has: names, shapes, and the order of rows that RoPE wants."""

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig

AGE = ".age"
"""Ending of the parameter for a memory's fill level. Older hybrids lack it; it is then 0."""


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every tensor of a model with this config, in order: Hugging Face's name → (rows, columns) or (n,)."""
    hidden, mlp = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    (first, second), (of_attention, of_mlp) = config.ways.norm_names
    of_heads = {"q": queries, "k": keys} if config.ways.whole_norm else dict.fromkeys("qk", config.head_dim)
    for i, spec in enumerate(config.layers):
        layer = f"model.layers.{i}"
        shapes |= _norm(layer, first, hidden)
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes |= _linear(f"{layer}.self_attn.{part}_proj", rows, hidden, config.qkv_bias)
        if config.qk_norm:
            shapes |= {f"{layer}.self_attn.{part}_norm.weight": (size,) for part, size in of_heads.items()}
        shapes |= _linear(f"{layer}.self_attn.o_proj", hidden, queries, config.output_bias)
        shapes |= _memory(f"{layer}.self_attn.memory", config, len(spec.remembering(config.num_kv_heads)))
        shapes |= _norm(layer, of_attention, hidden) | _norm(layer, second, hidden)
        shapes |= _linear(f"{layer}.mlp.gate_proj", mlp, hidden, config.mlp_bias)
        shapes |= _linear(f"{layer}.mlp.up_proj", mlp, hidden, config.mlp_bias)
        shapes |= _linear(f"{layer}.mlp.down_proj", hidden, mlp, config.mlp_bias) | _norm(layer, of_mlp, hidden)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def turned_order(config: ModelConfig, rows: int) -> npt.NDArray[np.int64]:
    """Return where each row of q or k comes from, where RoPE turns the first `ways.turned` numbers of a head in pairs (i, i + turned/2):
    halves of them go to the beginnings of the head's halves, so that pairs are (i, i + head_dim/2), and what is not turned lies behind."""
    dim, turned = config.head_dim, config.ways.turned
    one, rest = np.arange(dim), np.arange(turned, dim)
    half = (dim - turned) // 2
    order = np.concatenate([one[: turned // 2], rest[:half], one[turned // 2 : turned], rest[half:]])
    result: npt.NDArray[np.int64] = (np.arange(0, rows, dim)[:, None] + order).reshape(-1)
    return result


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
