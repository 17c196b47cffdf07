"""Qwen 3.5's language models: the gated delta rule in three of four layers, gated attention in the others."""

from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import DeltaRule, ModelConfig, Ways
from ingle.model.family import Family, Traits, attention_bias, mixers_of
from ingle.model.fields import Fields

_EVERY = 4
_OTHER = "linear_attention"
_WAYS = Ways(gated=True)


def _types(layers: int, every: int) -> list[str]:
    return ["full_attention" if (i + 1) % every == 0 else _OTHER for i in range(layers)]


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    every = fields.whole("full_attention_interval", _EVERY)
    if every < 1:
        raise CheckpointError(f"{fields.where}: full_attention_interval", "must be at least 1", every)
    types = Fields({**fields.table, "layer_types": fields.texts("layer_types") or _types(layers, every)}, fields.where)
    width, values = fields.whole("linear_key_head_dim", 128), fields.whole("linear_value_head_dim", 128)
    if width != values:
        raise CheckpointError(f"{fields.where}: linear_value_head_dim", f"must be linear_key_head_dim = {width}", values)
    heads = fields.whole("linear_num_key_heads", 16), fields.whole("linear_num_value_heads", 32)
    own = DeltaRule(*heads, width, fields.whole("linear_conv_kernel_dim", 4))
    bias = attention_bias(fields)
    return Traits(bias, bias, qk_norm=True, ways=_WAYS, mixers=mixers_of(types, layers, _OTHER, "delta"), delta=own)


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    own = config.delta
    assert own is not None, "the family has the delta rule"
    types = ["full_attention" if spec.mixer == "attention" else _OTHER for spec in config.layers]
    sizes = {"linear_key_head_dim": own.dim, "linear_value_head_dim": own.dim, "linear_conv_kernel_dim": own.length}
    heads = {"linear_num_key_heads": own.key_heads, "linear_num_value_heads": own.value_heads}
    part = (config.ways.turned or config.head_dim) / config.head_dim
    return {"attention_bias": config.qkv_bias, "layer_types": types, "partial_rotary_factor": part, **sizes, **heads}


def gguf_traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`. llama.cpp orders value heads in its own way, which `DeltaRule.tiled` tells."""
    every = fields.whole("full_attention_interval", _EVERY)
    heads, dim, inner = fields.whole("ssm.time_step_rank"), fields.whole("ssm.state_size"), fields.whole("ssm.inner_size")
    if every < 1 or inner != heads * dim:
        raise CheckpointError(f"{fields.where}.ssm.inner_size", f"must be time_step_rank · state_size = {heads * dim}", inner)
    mixers = mixers_of(Fields({"layer_types": _types(layers, every)}, fields.where), layers, _OTHER, "delta")
    own = DeltaRule(fields.whole("ssm.group_count"), heads, dim, fields.whole("ssm.conv_kernel"), tiled=True)
    return Traits(ways=_WAYS, mixers=mixers, delta=own)


IN_GGUF = {
    "attn_qkv": "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z", "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a", "ssm_conv1d": "linear_attn.conv1d", "ssm_norm": "linear_attn.norm",
    "ssm_out": "linear_attn.out_proj", "ssm_a": "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias",
}  # fmt: skip
FAMILY = Family(
    "Qwen3_5ForCausalLM", traits, table, "qwen35", gguf_traits, head_dim=256, part=0.25, norm_offset=1.0, gguf_names=IN_GGUF,
)  # fmt: skip
