"""LFM2 of Liquid AI: gated short convolutions in most layers, attention in the others."""

from collections.abc import Mapping
from typing import Any

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig, ShortConvolution
from ingle.model.family import Family, Traits, mixers_of
from ingle.model.fields import Fields

_OTHER = "conv"


def keys(fields: Fields) -> Mapping[str, Any]:
    """See `ingle.model.family.Family`. The MLP's width may be given before it is cut to two thirds and rounded up."""
    width = fields.whole("block_ff_dim", fields.whole("intermediate_size"))
    if fields.flag("block_auto_adjust_ff_dim", True):
        unit = fields.whole("block_multiple_of", 256)
        if unit < 1:
            raise CheckpointError(f"{fields.where}: block_multiple_of", "must be at least 1", unit)
        width = int(fields.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
        width = -(-width // unit) * unit
    tied = fields.flag("tie_embedding", fields.flag("tie_word_embeddings", True))
    return {"intermediate_size": width, "rms_norm_eps": fields.number("norm_eps", 1e-5), "tie_word_embeddings": tied}


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    if fields.texts("layer_types") is None:
        where = fields.table.get("full_attn_idxs")
        chosen = where if isinstance(where, list) else range(layers)
        types = ["full_attention" if i in chosen else _OTHER for i in range(layers)]
        fields = Fields({**fields.table, "layer_types": types}, fields.where)
    own = ShortConvolution(fields.whole("conv_L_cache", 3), fields.flag("conv_bias", False))
    return Traits(qk_norm=True, mixers=mixers_of(fields, layers, _OTHER, "convolution"), convolution=own)


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    own = config.convolution
    assert own is not None, "the family has convolutions"
    types = ["full_attention" if spec.mixer == "attention" else _OTHER for spec in config.layers]
    sizes = {"conv_L_cache": own.length, "conv_bias": own.bias, "norm_eps": config.norm_eps}
    return {"layer_types": types, **sizes, "block_auto_adjust_ff_dim": False, "pad_token_id": None}


def gguf_traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`. Layers with attention are those that have groups of keys and values."""
    groups = fields.numbers("attention.head_count_kv")
    if groups is None or len(groups) != layers:
        raise CheckpointError(f"{fields.where}.attention.head_count_kv", f"must be {layers} numbers", "" if groups is None else len(groups))
    own = ShortConvolution(fields.whole("shortconv.l_cache"))
    return Traits(mixers=tuple("attention" if count else "convolution" for count in groups), convolution=own)


RENAMED = {
    "input_layernorm": "operator_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "self_attn.out_proj",
    "self_attn.q_norm": "self_attn.q_layernorm", "self_attn.k_norm": "self_attn.k_layernorm", "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "model.norm": "model.embedding_norm",
}  # fmt: skip
IN_GGUF = {
    "token_embd_norm": "model.norm", "shortconv.conv": "conv.conv", "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
}  # fmt: skip
FAMILY = Family("Lfm2ForCausalLM", traits, table, "lfm2", gguf_traits, keys, tied=True, gguf_names=IN_GGUF, renamed=RENAMED)
