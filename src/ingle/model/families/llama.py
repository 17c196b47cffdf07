"""Llama, and what is built like it: SmolLM2, TinyLlama, Mistral's files that call themselves Llama."""

from typing import Any

from ingle.core.spec import ModelConfig
from ingle.model.family import Family, Traits, attention_bias, no_windows
from ingle.model.fields import Fields


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    bias = attention_bias(fields)
    return Traits(bias, bias, fields.flag("mlp_bias", False))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


FAMILY = Family("LlamaForCausalLM", traits, table, gguf="llama", interleaved=True)
