"""Qwen 3: q and k are normalised per head."""

from typing import Any

from ingle.core.spec import ModelConfig
from ingle.model.families import qwen2
from ingle.model.family import Family, Traits, attention_bias
from ingle.model.fields import Fields


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    bias = attention_bias(fields)
    return Traits(bias, bias, qk_norm=True, windows=qwen2.windows(fields, layers))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    return {"attention_bias": config.qkv_bias, **qwen2.table(config)}


FAMILY = Family("Qwen3ForCausalLM", traits, table, gguf="qwen3", head_dim=128)
