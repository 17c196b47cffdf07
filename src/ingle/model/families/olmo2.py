"""OLMo 2: norms behind attention and MLP instead of before them, and one norm over all of q, and of k."""

from typing import Any

from ingle.core.spec import ModelConfig, Ways
from ingle.model.family import Family, Traits, attention_bias, no_windows
from ingle.model.fields import Fields

_WAYS = Ways(norms="after", whole_norm=True)


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    bias = attention_bias(fields)
    return Traits(bias, bias, qk_norm=True, ways=_WAYS)


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    return {"attention_bias": config.qkv_bias}


def gguf_traits(_fields: Fields, _layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    return Traits(ways=_WAYS)


FAMILY = Family("Olmo2ForCausalLM", traits, table, "olmo2", gguf_traits)
