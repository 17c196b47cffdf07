"""`config.json` becomes a `ModelConfig` and comes back; what cannot be run is named; RoPE is transformers' to the last bit or two."""

import json
from typing import Any

import numpy as np
import pytest
from tiny_models import hf_table, tiny_config

from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.spec import LayerSpec, Rope
from ingle.model.hf_config import config_from_hf, config_to_hf, config_to_own, inverse_frequencies, llama3_from_factors

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
SCALINGS: list[dict[str, Any] | None] = [
    None,
    {"type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 2.5},
    LLAMA3,
    {**LLAMA3, "original_max_position_embeddings": 8192, "factor": 32.0},
    {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "beta_fast": 16.0, "beta_slow": 2.0},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "attention_factor": 1.25},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 0.5},
]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("theta", "head_dim"), [(10000.0, 16), (500000.0, 64), (1000000.0, 128)])
def test_inverse_frequencies_are_those_of_transformers(scaling: dict[str, Any] | None, theta: float, head_dim: int) -> None:
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    table = hf_table("llama", rope_theta=theta, head_dim=head_dim, rope_scaling=dict(scaling) if scaling else None)
    ours, scale = inverse_frequencies(config_from_hf(table))
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**{k: v for k, v in table.items() if k != "architectures"}))
    assert ours.dtype == np.float32
    assert ours.shape == (head_dim // 2,)
    np.testing.assert_allclose(ours, theirs.inv_freq.numpy(), rtol=3e-7, atol=0)
    assert scale == pytest.approx(theirs.attention_scaling, rel=1e-12)


def test_the_new_way_of_writing_rope_means_the_same() -> None:
    old = tiny_config("llama", rope_scaling=LLAMA3, rope_theta=500000.0)
    new = hf_table("llama", rope_parameters={**LLAMA3, "rope_theta": 500000.0})
    del new["rope_theta"]
    assert config_from_hf(new) == old
    assert old.rope.kind == "llama3"


@pytest.mark.parametrize("original", [8192, 4096, 6000])
@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (2.0, 5.0)])
def test_llama3_is_found_again_from_the_divisors_that_gguf_keeps(original: int, low: float, high: float) -> None:
    rope = Rope(500000.0, "llama3", 32.0, original, low, high)
    made = tiny_config("llama", head_dim=128, num_attention_heads=4)
    plain, _ = inverse_frequencies(_with_rope(made, Rope(500000.0)))
    scaled, _ = inverse_frequencies(_with_rope(made, rope))
    found = llama3_from_factors(plain / scaled, 500000.0, 128, 131072, "file")
    again, _ = inverse_frequencies(_with_rope(made, found))
    np.testing.assert_allclose(again, scaled, rtol=3e-5)
    if (low, high) == (1.0, 4.0) and original in (8192, 4096):
        assert found == rope


def test_divisors_that_are_not_llama3s_are_refused() -> None:
    with pytest.raises(CheckpointError, match="Llama 3's rule"):
        llama3_from_factors(np.linspace(1, 7, 32, dtype=np.float32), 10000.0, 64, 8192, "file")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"rope_scaling": LLAMA3}),
        ("llama", {"rope_scaling": SCALINGS[1]}),
        ("qwen2", {"rope_scaling": SCALINGS[6]}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        ("qwen3", {"attention_bias": True, "head_dim": 32}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_a_config_survives_export(family: str, changes: dict[str, Any]) -> None:
    made = tiny_config(family, **changes)
    assert config_from_hf(config_to_hf(made)) == made


def test_families_differ_where_they_should() -> None:
    llama, qwen2, qwen3 = (tiny_config(family) for family in ("llama", "qwen2", "qwen3"))
    assert (llama.qkv_bias, qwen2.qkv_bias, qwen3.qkv_bias) == (False, True, False)
    assert (llama.qk_norm, qwen2.qk_norm, qwen3.qk_norm) == (False, False, True)
    assert not qwen2.output_bias
    sliding = tiny_config("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1)
    assert sliding.layers == (LayerSpec((0, 1)), LayerSpec((), window=16))
    assert tiny_config("qwen2", use_sliding_window=False, sliding_window=16, max_window_layers=0).is_transformer
    no_head_dim = hf_table("llama")
    del no_head_dim["head_dim"]
    assert config_from_hf(no_head_dim).head_dim == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "Known: .*LlamaForCausalLM, .*Qwen2ForCausalLM, Qwen3ForCausalLM"),
        ({"architectures": [3]}, "architectures"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number"),
        ({"vocab_size": None}, "vocab_size is required"),
        ({"vocab_size": 10**400}, "vocab_size"),
        ({"num_hidden_layers": 10**12}, "layers"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"attention_bias": "yes"}, "attention_bias must be true or false"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "Known kinds: default, linear, llama3, yarn"),
        ({"rope_scaling": {"type": "linear"}}, "factor is required"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        ({"rope_scaling": [1]}, "rope_scaling must be a table"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": False}}, "truncate"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types must have num_hidden_layers = 2"),
    ],
)
def test_what_cannot_be_run_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        config_from_hf(hf_table("llama", **changes))


def test_a_hybrid_is_not_exported_as_something_else() -> None:
    made = tiny_config("qwen3")
    for layers in [(LayerSpec((0,), window=8),) * 2, (LayerSpec((), window=8, sinks=2),) * 2]:
        with pytest.raises(ConfigError, match="cannot be written"):
            config_to_hf(made.with_layers(layers))
    with pytest.raises(ConfigError, match="cannot be written"):
        config_to_hf(tiny_config("llama").with_layers((LayerSpec((), window=8),) * 2))


def _with_rope(config: Any, rope: Rope) -> Any:
    from dataclasses import replace

    return replace(config, rope=rope)


def test_any_layers_survive_in_our_own_config_and_nobody_elses_class_takes_them() -> None:
    layers = (LayerSpec((0,), window=8, sinks=2, memory="gated_delta"), LayerSpec((0, 1)))
    made = tiny_config("qwen3", tie_word_embeddings=True).with_layers(layers)
    table = json.loads(json.dumps(config_to_own(made)))
    assert config_from_hf(table) == made
    assert (table["architectures"], table["model_type"]) == (["IngleForCausalLM"], "ingle")
    for damage, message in [
        ({"family": "llama"}, "family and layers"),
        ({"family": "mamba", "layers": []}, "family and layers"),
        ({"family": "qwen3", "layers": [{"retrieval": [0]}]}, "2 entries"),
        ({"family": "qwen3", "layers": [{"retrieval": [7]}] * 2}, "retrieval"),
        ({"family": "qwen3", "layers": [{"retrieval": [0], "shift": 3}] * 2}, "shift"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            config_from_hf({**table, "ingle": damage})


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 5, "long_factor": [1.0] * 6}}, r"rope\.divisors must be 6"),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": "many"}}, "short_factor must be a list"),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [0.0] * 6}}, "short_factor must be a list of numbers above 0"),
        ("phi3", {"partial_rotary_factor": 0.01}, "must leave a pair to turn"),
        ("phi3", {"partial_rotary_factor": -1}, "partial_rotary_factor must be above 0"),
        ("smollm3", {"no_rope_layers": [[1], {}, 0, 1]}, "no_rope_layers must be 4 numbers"),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 0}, "no_rope_layer_interval must be at least 1"),
        ("gemma3_text", {"layer_types": None, "sliding_window_pattern": 0}, "sliding_window_pattern must be at least 1"),
        ("gemma3_text", {"hidden_size": -4}, "hidden_size"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be above 0"),
        ("gemma3_text", {"rope_parameters": {"full_attention": [1]}}, "full_attention must be a table"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "Gemma 2 is not run"),
        ("granite", {"logits_scaling": 0}, "logits_scaling must be above 0"),
        ("olmo2", {"layer_types": ["sliding_attention"] * 2}, "layer_types must be full_attention"),
        ("olmoe", {"num_experts_per_tok": 9}, "experts.chosen must be at most count = 8"),
        ("olmoe", {"num_experts": 0}, "experts.count must be between 1"),
        ("olmoe", {"num_experts": 40_000}, "experts.count must be at most 65536 in all layers"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv must be null"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step must be at least 1"),
        ("qwen3_moe", {"mlp_only_layers": [7]}, "mlp_only_layers must be numbers of layers below 2"),
        ("qwen3_moe", {"mlp_only_layers": "all"}, "mlp_only_layers must be numbers"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layer_types must have num_hidden_layers = 4"),
        ("lfm2", {"layer_types": ["conv", "mamba", "conv", "conv"]}, "layer_types must be full_attention or conv"),
        ("lfm2", {"conv_L_cache": 1}, "convolution.length must be between 2"),
        ("lfm2", {"conv_L_cache": 10**9}, "convolution.length must be between 2"),
        ("lfm2", {"hidden_size": 40, "num_attention_heads": 4}, "hidden_size must be a multiple of 16"),
        ("lfm2", {"block_auto_adjust_ff_dim": True, "block_multiple_of": 0}, "block_multiple_of must be at least 1"),
        ("qwen3_5_text", {"linear_value_head_dim": 32}, "linear_value_head_dim must be linear_key_head_dim = 16"),
        ("qwen3_5_text", {"linear_num_value_heads": 3}, "delta.value_heads must be a multiple"),
        ("qwen3_5_text", {"linear_key_head_dim": 24, "linear_value_head_dim": 24}, "delta.dim must be a multiple of 16"),
        ("qwen3_5_text", {"full_attention_interval": 0}, "full_attention_interval must be at least 1"),
        ("qwen3_5_text", {"layer_types": ["sliding_attention"] * 4}, "layer_types must be full_attention or linear_attention"),
    ],
)
def test_what_a_family_cannot_be_is_named(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        tiny_config(family, **changes)
