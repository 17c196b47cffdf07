"""Tiny random checkpoints of each family, as Hugging Face folders and as GGUF files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ingle.core.spec import DeltaRule, ModelConfig
from ingle.model.family import families, has_offset, whole_of
from ingle.model.hf_config import config_from_hf
from ingle.model.tensor import expected_shapes

BASE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "rope_theta": 10000.0, "pad_token_id": None,
}  # fmt: skip
ARCHITECTURE = {name: family.architecture for name, family in families().items()}
OWN: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 5},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]},
    "granite": {"embedding_multiplier": 6.0, "residual_multiplier": 0.22, "attention_multiplier": 0.05, "logits_scaling": 4.0},
    "phi3": {
        "original_max_position_embeddings": 128, "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0], "long_factor": [9.0] * 6},
    },
    "gemma3_text": {
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 30, "rope_local_base_freq": 500.0,
    },
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 48},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True},
    "lfm2": {
        "num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False,
        "norm_eps": 1e-5, "tie_word_embeddings": False,
    },
    "qwen3_5_text": {
        "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "partial_rotary_factor": 0.25, "head_dim": 32,
    },
}  # fmt: skip
"""What a family's tiny model says beside the rest."""


def hf_table(family: str, **changes: Any) -> dict[str, Any]:
    """A config.json of this family."""
    return {**BASE, "architectures": [ARCHITECTURE[family]], "model_type": family, "head_dim": 16, **OWN.get(family, {}), **changes}


def tiny_config(family: str, **changes: Any) -> ModelConfig:
    return config_from_hf(hf_table(family, **changes))


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """float32, by Hugging Face's name, of a size at which logits are neither flat nor huge."""
    draw = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(config).items():
        scale, middle = (0.2, 1.0) if "norm" in name else (0.15, 0.0)
        weights[name] = (middle + scale * draw.standard_normal(shape)).astype(np.float32)
    return weights


def hf_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """transformers' own model with random weights, biases and norms included, in eval mode."""
    import torch
    import transformers

    table = hf_table(family, **changes)
    model_class = getattr(transformers, ARCHITECTURE[family])
    told = {k: v for k, v in table.items() if k not in ("architectures", "model_type")}
    model = model_class(model_class.config_class(**told, attn_implementation="eager")).eval()
    config = config_from_hf(table)
    weights = random_weights(config, seed)
    weights = {name: make() for name, (_, make) in whole_of(config, weights.__getitem__).items()}
    missing = model.load_state_dict({name: torch.from_numpy(w) for name, w in _experts_together(config, weights).items()}, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    return model


def _experts_together(config: ModelConfig, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Experts as transformers has them in memory; in files each lies by itself."""
    found = {name: w for name, w in weights.items() if ".experts." not in name}
    for i in range(len(config.layers)):
        if (experts := config.experts_at(i)) is not None:
            name = f"model.layers.{i}.mlp.experts"
            every = [[weights[f"{name}.{number}.{part}_proj.weight"] for part in ("gate", "up", "down")] for number in range(experts.count)]
            found[f"{name}.gate_up_proj"] = np.stack([np.concatenate([gate, up]) for gate, up, _ in every])
            found[f"{name}.down_proj"] = np.stack([down for _, _, down in every])
    return found


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's `permute`, copied from its converter: Hugging Face's order to GGUF's."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@cache
def _gguf_names(architecture: str) -> Any:
    by_name = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(by_name[architecture], 30)


def gguf_name(name: str, architecture: str = "qwen3") -> str:
    """Hugging Face's name to GGUF's, by the gguf library's own map. Qwen3 has all that llama and qwen2 have, and the norms of q and k."""
    found = _gguf_names(architecture).get_name(name, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def _add_ways(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """What llama.cpp's converter writes for these families."""
    ways = config.ways
    if config.family == "granite":
        writer.add_embedding_scale(ways.embedding_scale)
        writer.add_residual_scale(ways.residual_scale)
        writer.add_attention_scale(ways.attention_scale)
        writer.add_logit_scale(1 / ways.logit_scale)
    if config.family == "phi3":
        writer.add_rope_dimension_count(config.ways.turned)
        writer.add_rope_scaling_orig_ctx_len(config.rope.original_context)
        writer.add_rope_scaling_attn_factors(config.rope.attention_factor)
        for length in ("short", "long"):
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(config.rope.divisors, np.float32))
    if config.family == "gemma3_text":
        writer.add_sliding_window(max(spec.window for spec in config.layers))
    if config.experts is not None:
        writer.add_expert_count(config.experts.count)
        writer.add_expert_used_count(config.experts.chosen)
        writer.add_expert_feed_forward_length(config.experts.width)
    if config.convolution is not None:
        writer.add_shortconv_l_cache(config.convolution.length)
    if config.delta is not None:
        writer.add_ssm_conv_kernel(config.delta.length)
        writer.add_ssm_state_size(config.delta.dim)
        writer.add_ssm_group_count(config.delta.key_heads)
        writer.add_ssm_time_step_rank(config.delta.value_heads)
        writer.add_ssm_inner_size(config.delta.value_heads * config.delta.dim)
        writer.add_full_attention_interval(4)
        writer.add_rope_dimension_count(config.ways.turned)


def _as_converted(config: ModelConfig, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights as llama.cpp's converter writes them for these families, under Hugging Face's names."""
    found = dict[str, np.ndarray]()
    own = config.delta
    for name, weight in _experts_together(config, weights).items():
        if name.endswith("gate_up_proj"):
            found[name.replace("gate_up", "gate") + ".weight"], found[name.replace("gate_up", "up") + ".weight"] = np.split(weight, 2, 1)
        elif name.endswith("experts.down_proj"):
            found[name + ".weight"] = weight
        elif ".linear_attn." in name and own is not None:
            keys = 2 * own.key_heads * own.dim
            if "in_proj_qkv" in name or "conv1d" in name:
                weight = np.concatenate([weight[:keys], _tiled(weight[keys:], own, own.dim)])
            elif "out_proj" in name:
                weight = np.ascontiguousarray(_tiled(weight.T, own, own.dim).T)
            elif "norm" not in name:
                weight = _tiled(weight, own, own.dim if "in_proj_z" in name else 1)
            weight = -np.exp(weight) if name.endswith("A_log") else weight
            found[name.replace("dt_bias", "dt_proj.bias")] = weight.squeeze(1) if weight.ndim == 3 else weight
        else:
            found[name] = weight.squeeze(1) if weight.ndim == 3 else weight
    return found


def _tiled(rows: np.ndarray, own: DeltaRule, each: int) -> np.ndarray:
    """Value heads of so many rows, from side by side for each key head to one after the other for all of them."""
    return rows.reshape(own.key_heads, -1, each, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def write_gguf(
    path: Path,
    config: ModelConfig,
    weights: dict[str, np.ndarray],
    kind: str = "F32",
    extra: Callable[[gguf.GGUFWriter], None] = lambda _: None,
) -> Path:
    """A GGUF file of these weights; matrices quantised to `kind`, vectors in F32. `extra` adds keys or tensors."""
    family = families()[config.family]
    writer = gguf.GGUFWriter(path, family.gguf)
    writer.add_block_count(len(config.layers))
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    groups = [config.num_kv_heads if spec.mixer == "attention" else 0 for spec in config.layers]
    writer.add_head_count_kv(groups if config.convolution is not None else config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    _add_ways(writer, config)
    extra(writer)
    names = "qwen3" if family.gguf in ("llama", "qwen2") else family.gguf
    if family.fused or family.renamed or config.ways.turned:
        whole = whole_of(config, weights.__getitem__)
        weights = {name: make() + (family.norm_offset if has_offset(name) else 0) for name, (_, make) in whole.items()}
    weights = _as_converted(config, weights)
    for name, weight in weights.items():
        if family.interleaved:
            for part, heads in ((".q_proj.", config.num_heads), (".k_proj.", config.num_kv_heads)):
                weight = interleave(weight, heads) if part in name else weight
        plain = weight.ndim == 1 or "conv.conv" in name or "conv1d" in name or name.endswith("mlp.gate.weight")
        member = gguf.GGMLQuantizationType["F32" if plain else kind]
        data = gguf.quants.quantize(weight, member)
        writer.add_tensor(gguf_name(name, names), data, raw_dtype=member)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
