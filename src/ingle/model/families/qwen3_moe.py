"""Qwen 3's mixtures of experts: Qwen 3 with experts in the place of the MLP."""

from dataclasses import replace
from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import Experts, ModelConfig
from ingle.model.families import qwen3
from ingle.model.family import EXPERTS_IN_GGUF, Family, Traits
from ingle.model.fields import Fields


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    every, said = fields.whole("decoder_sparse_step", 1), fields.table.get("mlp_only_layers") or []
    if every < 1:
        raise CheckpointError(f"{fields.where}: decoder_sparse_step", "must be at least 1", every)
    if not isinstance(said, list) or not all(isinstance(one, int) and 0 <= one < layers for one in said):
        raise CheckpointError(f"{fields.where}: mlp_only_layers", f"must be numbers of layers below {layers}", repr(said)[:80])
    plain = tuple(i for i in range(layers) if i in said or (i + 1) % every)
    count = fields.whole("num_experts", fields.whole("num_local_experts", 128))
    chosen, width = fields.whole("num_experts_per_tok", 8), fields.whole("moe_intermediate_size", 768)
    experts = Experts(count, chosen, width, fields.flag("norm_topk_prob", False), plain)
    return replace(qwen3.traits(fields, layers), experts=experts)


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    own = config.experts
    assert own is not None, "the family has experts"
    sizes = {"num_experts": own.count, "num_experts_per_tok": own.chosen, "moe_intermediate_size": own.width}
    return {**qwen3.table(config), **sizes, "norm_topk_prob": own.normed, "mlp_only_layers": list(own.plain), "decoder_sparse_step": 1}


def gguf_traits(fields: Fields, _layers: int) -> Traits:
    """See `ingle.model.family.Family`; llama.cpp always makes the shares sum to 1."""
    width = fields.whole("expert_feed_forward_length")
    return Traits(experts=Experts(fields.whole("expert_count"), fields.whole("expert_used_count"), width, normed=True))


FAMILY = Family("Qwen3MoeForCausalLM", traits, table, "qwen3moe", gguf_traits, head_dim=128, gguf_names=EXPERTS_IN_GGUF)
