"""IBM's Granite 3: Llama with four factors, of embeddings, of what is added to the stream, of scores and of logits."""

from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig, Ways
from ingle.model.family import Family, Traits, attention_bias, no_windows
from ingle.model.fields import Fields

_KEYS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
_GGUF_KEYS = ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")


def ways(fields: Fields, keys: tuple[str, ...]) -> Ways:
    """Return the four factors; logits are divided by theirs. Raises CheckpointError for one that is not above 0."""
    found = [fields.number(key, 1.0) for key in keys]
    for key, value in zip(keys, found, strict=True):
        if value <= 0:
            raise CheckpointError(f"{fields.where}: {key}", "must be above 0", value)
    return Ways(embedding_scale=found[0], residual_scale=found[1], attention_scale=found[2], logit_scale=1 / found[3])


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    bias = attention_bias(fields)
    return Traits(bias, bias, fields.flag("mlp_bias", False), ways=ways(fields, _KEYS))


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    of = config.ways
    factors = (of.embedding_scale, of.residual_scale, of.attention_scale, 1 / of.logit_scale)
    return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias, **dict(zip(_KEYS, factors, strict=True))}


def gguf_traits(fields: Fields, _layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    return Traits(ways=ways(fields, _GGUF_KEYS))


FAMILY = Family("GraniteForCausalLM", traits, table, "granite", gguf_traits, interleaved=True)
