"""Tiny random checkpoints of each family, as Hugging Face folders and as GGUF files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ingle.core.spec import ModelConfig
from ingle.model.config import config_from_hf
from ingle.model.expected import expected_shapes
from ingle.model.family import families
from ingle.model.fused import whole_of

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
    weights = random_weights(config_from_hf(table), seed)
    config = config_from_hf(table)
    weights = {name: make() for name, (_, make) in whole_of(config, weights.__getitem__).items()}
    missing = model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()}, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    return model


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
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    _add_ways(writer, config)
    extra(writer)
    names = "qwen3" if family.gguf in ("llama", "qwen2") else family.gguf
    if family.fused:
        weights = {name: make() for name, (_, make) in whole_of(config, weights.__getitem__).items()}
    for name, weight in weights.items():
        if family.interleaved:
            for part, heads in ((".q_proj.", config.num_heads), (".k_proj.", config.num_kv_heads)):
                weight = interleave(weight, heads) if part in name else weight
        member = gguf.GGMLQuantizationType[kind if weight.ndim == 2 else "F32"]
        data = gguf.quants.quantize(weight, member)
        writer.add_tensor(gguf_name(name, names), data, raw_dtype=member)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
