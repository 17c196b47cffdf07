"""OLMoE: a mixture of experts in every layer, and one norm over all of q, and of k."""

from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import Experts, ModelConfig, Ways
from ingle.model.family import EXPERTS_IN_GGUF, Family, Traits, attention_bias, no_windows
from ingle.model.fields import Fields

_WAYS = Ways(whole_norm=True)


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    if fields.table.get("clip_qkv") is not None:
        raise CheckpointError(f"{fields.where}: clip_qkv", "must be null", fields.table["clip_qkv"])
    chosen, width = fields.whole("num_experts_per_tok", 8), fields.whole("intermediate_size", 2048)
    experts = Experts(fields.whole("num_experts", 64), chosen, width, fields.flag("norm_topk_prob", False))
    bias = attention_bias(fields)
    return Traits(bias, bias, qk_norm=True, ways=_WAYS, experts=experts)


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    own = config.experts
    assert own is not None, "every layer has experts"
    sizes = {"num_experts": own.count, "num_experts_per_tok": own.chosen, "norm_topk_prob": own.normed}
    return {"attention_bias": config.qkv_bias, "clip_qkv": None, "pad_token_id": None, **sizes}


def gguf_traits(fields: Fields, _layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    experts = Experts(fields.whole("expert_count"), fields.whole("expert_used_count"), fields.whole("feed_forward_length"))
    return Traits(ways=_WAYS, experts=experts)


FAMILY = Family("OlmoeForCausalLM", traits, table, "olmoe", gguf_traits, gguf_names=EXPERTS_IN_GGUF)
