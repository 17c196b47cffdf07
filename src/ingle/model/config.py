"""Convert Hugging Face's `config.json` to `ModelConfig`, and back for export.

Hugging Face has no class for hybrids. They are written under our own architecture, so that no other program takes them for plain
transformers: the family's own keys, and `ingle` with the family and each layer's spec.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.spec import LayerSpec, ModelConfig, transformer_layers
from ingle.model.composite import COMPOSITES, text_table
from ingle.model.fields import Fields
from ingle.model.rope import rope_from_hf, rope_to_hf

Family = Literal["llama", "qwen2", "qwen3"]
FAMILIES: dict[str, Family] = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
OWN = "IngleForCausalLM"
MAX_LAYERS = 4096  # a damaged file must not make us build a billion layer specs


def config_from_hf(table: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Return the `ModelConfig` of a `config.json`. Raises CheckpointError, naming the key, for all that Ingle cannot run."""
    if "ingle" in table:
        return _from_own(table, where)
    table, where = text_table(table, where)
    fields = Fields(table, where)
    family = _family(fields)
    if fields.text("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: hidden_act", "must be silu", fields.text("hidden_act"))
    heads, hidden, context = fields.whole("num_attention_heads"), fields.whole("hidden_size"), fields.whole("max_position_embeddings")
    kv_heads = fields.whole("num_key_value_heads", heads)
    attention_bias = family != "qwen2" and fields.flag("attention_bias", False)
    with blame_checkpoint(where):
        return ModelConfig(
            family=family,
            vocab_size=fields.whole("vocab_size"),
            hidden_size=hidden,
            intermediate_size=fields.whole("intermediate_size"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=_head_dim(fields, family, hidden, heads),
            layers=_layers(fields, family, kv_heads),
            context_length=context,
            rope=rope_from_hf(table, context, where),
            norm_eps=norm_eps(fields, "rms_norm_eps"),
            tie_embeddings=fields.flag("tie_word_embeddings", False),
            qkv_bias=family == "qwen2" or attention_bias,
            output_bias=attention_bias,
            mlp_bias=family == "llama" and fields.flag("mlp_bias", False),
            qk_norm=family == "qwen3",
        )


def config_to_hf(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """Return a `config.json` that transformers opens as the same model.

    Raises ConfigError where Hugging Face's classes cannot express the config (head groups, sinks, odd combinations of biases).
    """
    architecture = next(name for name, family in FAMILIES.items() if family == config.family)
    table: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
    }
    table |= rope_to_hf(config.rope) | _layers_to_hf(config)
    if config.family != "qwen2":
        table["attention_bias"] = config.qkv_bias
    if config.family == "llama":
        table["mlp_bias"] = config.mlp_bias
    if config_from_hf(table) != config:
        raise ConfigError("config", f"cannot be written as {architecture}: its biases or norms are not that family's", config)
    return table


def config_to_own(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """Return a `config.json` for Ingle alone, with any layers. Raises ConfigError where biases or norms are not the family's."""
    full = config.with_layers(transformer_layers(len(config.layers), config.num_kv_heads))
    own = {"family": config.family, "layers": to_table(config.layers)}
    return {**config_to_hf(full, dtype), "architectures": [OWN], "model_type": "ingle", "ingle": own}


def _from_own(table: Mapping[str, Any], where: str) -> ModelConfig:
    own = table["ingle"]
    if not isinstance(own, dict) or own.get("family") not in FAMILIES.values() or not isinstance(own.get("layers"), list):
        raise CheckpointError(f"{where}: ingle", "must hold family and layers", own, "The file is damaged, or of a newer Ingle.")
    plain = {key: value for key, value in table.items() if key not in ("ingle", "architectures")}
    config = config_from_hf({**plain, "model_type": own["family"]}, where)
    with blame_checkpoint(f"{where}: ingle"):
        return config.with_layers(tuple(from_table(LayerSpec, layer, f"layers[{i}].") for i, layer in enumerate(own["layers"])))


@contextmanager
def blame_checkpoint(where: str) -> Iterator[None]:
    """Turn a ConfigError of `ModelConfig` into a CheckpointError while a checkpoint is read."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.field}", error.rule, error.got, error.cure) from error


def full_layers(count: int, kv_heads: int, where: str) -> tuple[LayerSpec, ...]:
    """Return `count` layers of full attention. Raises CheckpointError for counts that no real model has."""
    if not 1 <= count <= MAX_LAYERS or not 1 <= kv_heads <= MAX_LAYERS:
        raise CheckpointError(f"{where}: layers, kv heads", f"must be between 1 and {MAX_LAYERS}", (count, kv_heads))
    return transformer_layers(count, kv_heads)


def norm_eps(fields: Fields, key: str) -> float:
    """Return the number added to the mean square in RMSNorm. Raises CheckpointError unless it is between 0 and 1."""
    value = fields.number(key, 1e-6)
    if not 0 <= value < 1:
        raise CheckpointError(f"{fields.where}: {key}", "must be between 0 and 1", value)
    return value


def _family(fields: Fields) -> Family:
    names = fields.texts("architectures") or []
    if not names:  # files written by hand name only the type
        names = [name for name, family in FAMILIES.items() if family == fields.table.get("model_type")]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    got = ", ".join(names) or fields.table.get("model_type") or "nothing"
    raise CheckpointError(
        f"{fields.where}: architectures", "is not an architecture that Ingle knows", got, f"Known: {', '.join((*FAMILIES, *COMPOSITES))}."
    )


def _head_dim(fields: Fields, family: Family, hidden: int, heads: int) -> int:
    if fields.table.get("head_dim") is not None:
        return fields.whole("head_dim")
    if family == "qwen3":
        return 128  # transformers' default for this family, whatever the width
    if heads < 1 or hidden % heads:
        raise CheckpointError(f"{fields.where}: hidden_size", f"must be a multiple of num_attention_heads = {heads}", hidden)
    return hidden // heads


def _layers(fields: Fields, family: Family, kv_heads: int) -> tuple[LayerSpec, ...]:
    count = fields.whole("num_hidden_layers")
    full = full_layers(count, kv_heads, fields.where)
    types = fields.texts("layer_types")
    windowed = family != "llama" and fields.flag("use_sliding_window", False)
    if types is None:
        first = fields.whole("max_window_layers", 28) if windowed and fields.table.get("sliding_window") is not None else count
        types = ["sliding_attention" if i >= first else "full_attention" for i in range(count)]
    if len(types) != count:
        raise CheckpointError(f"{fields.where}: layer_types", f"must have num_hidden_layers = {count} entries", len(types))
    unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
    if unknown or ("sliding_attention" in types and not windowed):
        rule = "must be full_attention" + (" or sliding_attention" if windowed else " where use_sliding_window is off")
        raise CheckpointError(f"{fields.where}: layer_types", rule, ", ".join(unknown) or "sliding_attention")
    if "sliding_attention" not in types:
        return full
    window = fields.whole("sliding_window")
    if window < 1:
        raise CheckpointError(f"{fields.where}: sliding_window", "must be at least 1", window)
    sliding = LayerSpec(retrieval=(), window=window)
    return tuple(sliding if kind == "sliding_attention" else full[0] for kind in types)


def _layers_to_hf(config: ModelConfig) -> dict[str, Any]:
    if config.is_transformer:
        return {}
    everything = tuple(range(config.num_kv_heads))
    windows = {layer.window for layer in config.layers if layer.retrieval != everything}
    plain = all(
        layer.retrieval == everything or (not layer.retrieval and not layer.sinks and layer.memory == "none") for layer in config.layers
    )
    if config.family == "llama" or not plain or len(windows) != 1:
        raise ConfigError(
            "layers", f"cannot be written as {config.family}: only whole layers with one window can, in qwen2 and qwen3", windows
        )
    types = ["full_attention" if layer.retrieval == everything else "sliding_attention" for layer in config.layers]
    return {"use_sliding_window": True, "sliding_window": windows.pop(), "layer_types": types, "max_window_layers": 0}
