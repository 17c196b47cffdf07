"""Llama, and what is built like it: SmolLM2, TinyLlama, Mistral's files that call themselves Llama."""

from typing import Any

from ingle.core.spec import ModelConfig
from ingle.model.family import Family, Fields, Traits, attention_bias, no_windows


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    bias = attention_bias(fields)
    return Traits(bias, bias, fields.flag("mlp_bias", False))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


FAMILY = Family("LlamaForCausalLM", traits, table, gguf="llama", interleaved=True)
