"""Gemma 3's language models: five layers with a window for each without, norms on both sides, a gate with gelu.

Weights of norms are kept as what is added to 1; here, as in GGUF, they are the factors themselves.
"""

import math
from collections.abc import Mapping
from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig, Rope, Ways
from ingle.model.family import Family, Traits, attention_bias, window_table, windows_of
from ingle.model.fields import Fields

_EVERY = 6
_LOCAL_THETA, _FULL_THETA = 10_000.0, 1_000_000.0


def _ways(hidden: int, scale: float, windows: tuple[int, ...], local: Rope) -> Ways:
    near = tuple(i for i, window in enumerate(windows) if window)
    return Ways("gelu", "both", embedding_scale=math.sqrt(hidden), attention_scale=scale, local=near, local_rope=local if near else None)


def keys(fields: Fields) -> Mapping[str, Any]:
    """See `ingle.model.family.Family`. Files of models with eyes leave out what transformers takes for granted."""
    usual: dict[str, Any] = {
        "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 131_072, "head_dim": 256,
    }  # fmt: skip
    if not fields.table.get("rope_parameters"):
        usual["rope_theta"] = _FULL_THETA
    return {key: value for key, value in usual.items() if fields.table.get(key) is None}


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        if fields.table.get(key) is not None:
            raise CheckpointError(f"{fields.where}: {key}", "must be null", fields.table[key], "Gemma 2 is not run.")
    if fields.flag("use_bidirectional_attention", False):
        raise CheckpointError(f"{fields.where}: use_bidirectional_attention", "must be false", True)
    every = fields.whole("sliding_window_pattern", fields.whole("_sliding_window_pattern", _EVERY))
    if every < 1:
        raise CheckpointError(f"{fields.where}: sliding_window_pattern", "must be at least 1", every)
    usual = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    table = {**fields.table, "layer_types": fields.texts("layer_types") or usual}
    windows = windows_of(Fields(table, fields.where), layers)
    scale = fields.number("query_pre_attn_scalar", 256.0)
    if scale <= 0:
        raise CheckpointError(f"{fields.where}: query_pre_attn_scalar", "must be above 0", scale)
    local = Fields(fields.table_of("rope_parameters"), fields.where).table_of("sliding_attention")
    theta = Fields(local, fields.where).number("rope_theta", fields.number("rope_local_base_freq", _LOCAL_THETA))
    bias, hidden = attention_bias(fields), fields.whole("hidden_size")
    if hidden < 1:
        raise CheckpointError(f"{fields.where}: hidden_size", "must be at least 1", hidden)
    return Traits(bias, bias, qk_norm=True, windows=windows, ways=_ways(hidden, scale**-0.5, windows, Rope(theta)))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    local = config.ways.local_rope or Rope(_LOCAL_THETA)
    return {
        "attention_bias": config.qkv_bias, "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": round(config.ways.attention_scale**-2), "rope_local_base_freq": local.theta, **window_table(config),
    }  # fmt: skip


def gguf_traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`; llama.cpp knows which layers have windows, and what turns them."""
    windows = tuple(int((i + 1) % _EVERY != 0) for i in range(layers))
    hidden, heads = fields.whole("embedding_length"), fields.whole("attention.head_count")
    width = hidden / max(heads, 1) if layers == 62 else fields.whole("attention.key_length", 256)  # 62: the one of 27B
    if width <= 0 or hidden < 1:
        raise CheckpointError(f"{fields.where}: attention.key_length, embedding_length", "must be above 0", (width, hidden))
    return Traits(ways=_ways(hidden, width**-0.5, windows, Rope(_LOCAL_THETA)))


FAMILY = Family(
    "Gemma3ForCausalLM", traits, table, "gemma3", gguf_traits, keys, head_dim=256, tied=True, norm_offset=1.0,
    gguf_names={"ffn_norm": "pre_feedforward_layernorm"},
)  # fmt: skip
