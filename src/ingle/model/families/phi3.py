"""Phi 3 and 4-mini: q, k and v lie in files as one matrix, gate and up too, and RoPE may turn only a part of each head.

Long versions have two sets of divisors (`longrope`), one for texts within the context of their first training and one beyond it. A text is
read with one of them, so Ingle takes the first, and its context is that one.
"""

from typing import Any

from ingle.core.spec import ModelConfig
from ingle.model.family import Family, Traits, no_windows
from ingle.model.fields import Fields


def traits(fields: Fields, layers: int) -> Traits:
    """See `ingle.model.family.Family`."""
    no_windows(fields, layers)
    context = fields.whole("original_max_position_embeddings", fields.whole("max_position_embeddings"))
    window = fields.whole("sliding_window", 0)
    return Traits(windows=(window,) * layers if 0 < window < context else ())


def table(config: ModelConfig) -> dict[str, Any]:
    """See `ingle.model.family.Family`."""
    part = (config.ways.turned or config.head_dim) / config.head_dim
    windows = {spec.window for spec in config.layers if not spec.retrieval}
    return {"partial_rotary_factor": part, "sliding_window": max(windows, default=None), "pad_token_id": None}


FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
FAMILY = Family("Phi3ForCausalLM", traits, table, "phi3", part=1.0, fused=FUSED, gguf_names={"ffn_up": "mlp.gate_up_proj"})
