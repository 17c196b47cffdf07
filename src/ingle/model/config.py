"""Convert Hugging Face's `config.json` to `ModelConfig`, and back for export.

Hugging Face has no class for hybrids. They are written under our own architecture, so that no other program takes them for plain
transformers: the family's own keys, and `ingle` with the family and each layer's spec.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.spec import LayerSpec, ModelConfig, transformer_layers
from ingle.model.composite import COMPOSITES, WORDS_ONLY, text_table
from ingle.model.family import Traits, families
from ingle.model.fields import Fields
from ingle.model.rope import rope_from_hf, rope_to_hf, turned_part

OWN = "IngleForCausalLM"
MAX_LAYERS = 4096  # a damaged file must not make us build a billion layer specs
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}


def config_from_hf(table: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Return the `ModelConfig` of a `config.json`. Raises CheckpointError, naming the key, for all that Ingle cannot run."""
    if "ingle" in table:
        return _from_own(table, where)
    table, where = text_table(table, where)
    fields = Fields(table, where)
    name = _family(fields)
    family = families()[name]
    table = {**table, **family.keys(fields)}
    fields = Fields(table, where)
    heads, hidden, context = fields.whole("num_attention_heads"), fields.whole("hidden_size"), fields.whole("max_position_embeddings")
    kv_heads, count = fields.whole("num_key_value_heads", heads), fields.whole("num_hidden_layers")
    layers = full_layers(count, kv_heads, where)
    with blame_checkpoint(where):
        traits = family.traits(fields, count)
    activation = fields.text("hidden_activation", fields.text("hidden_act", _ACTIVATIONS[traits.ways.activation]))
    if activation != _ACTIVATIONS[traits.ways.activation]:
        raise CheckpointError(f"{where}: hidden_act", f"must be {_ACTIVATIONS[traits.ways.activation]}", activation)
    layers = mixing(layers, traits)
    if traits.windows:
        layers = tuple(LayerSpec(retrieval=(), window=near) if near else full for near, full in zip(traits.windows, layers, strict=True))
    head_dim, rope = _head_dim(fields, family.head_dim, hidden, heads), rope_from_hf(table, context, where)
    part = turned_part(table, where, family.part or 1.0)
    if part != 1 and not family.part:
        raise CheckpointError(f"{where}: partial_rotary_factor", "must be 1 in this family", part)
    turned = int(head_dim * part)
    if turned < 2:
        raise CheckpointError(f"{where}: partial_rotary_factor", f"must leave a pair to turn, of head_dim = {head_dim}", part)
    ways = traits.ways if part == 1 else replace(traits.ways, turned=turned)
    with blame_checkpoint(where):
        return ModelConfig(
            family=name,
            vocab_size=fields.whole("vocab_size"),
            hidden_size=hidden,
            intermediate_size=fields.whole("intermediate_size"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            layers=layers,
            context_length=rope.original_context if rope.kind == "longrope" else context,
            rope=rope,
            norm_eps=norm_eps(fields, "rms_norm_eps"),
            tie_embeddings=fields.flag("tie_word_embeddings", family.tied),
            qkv_bias=traits.qkv_bias,
            output_bias=traits.output_bias,
            mlp_bias=traits.mlp_bias,
            qk_norm=traits.qk_norm,
            ways=ways,
            convolution=traits.convolution,
            delta=traits.delta,
            experts=traits.experts,
        )


def config_to_hf(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """Return a `config.json` that transformers opens as the same model.

    Raises ConfigError where Hugging Face's classes cannot express the config (head groups, sinks, odd combinations of biases).
    """
    family = families()[config.family]
    table: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": _ACTIVATIONS[config.ways.activation],
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
    }
    if not config.is_transformer:
        _check_whole_layers(config)
    if config.delta is not None:
        config = replace(config, delta=replace(config.delta, tiled=False))  # `model.fused` orders the heads
    table |= {**rope_to_hf(config.rope), **family.table(config)}
    if config_from_hf(table) != config:
        rule = f"cannot be written as {family.architecture}: its layers, biases or norms are not that family's"
        raise ConfigError("config", rule, config)
    return table


def config_to_own(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """Return a `config.json` for Ingle alone, with any layers. Raises ConfigError where biases or norms are not the family's."""
    whole = transformer_layers(len(config.layers), config.num_kv_heads)
    layers = zip(config.layers, whole, strict=True)
    full = config.with_layers(tuple(full if layer.mixer == "attention" else layer for layer, full in layers))
    own = {"family": config.family, "layers": to_table(config.layers)}
    return {**config_to_hf(full, dtype), "architectures": [OWN], "model_type": "ingle", "ingle": own}


def _from_own(table: Mapping[str, Any], where: str) -> ModelConfig:
    own = table["ingle"]
    if not isinstance(own, dict) or own.get("family") not in families() or not isinstance(own.get("layers"), list):
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


def mixing(layers: tuple[LayerSpec, ...], traits: Traits) -> tuple[LayerSpec, ...]:
    """Return the layers with a family's mixers."""
    if not traits.mixers:
        return layers
    return tuple(one if mixer == "attention" else LayerSpec((), mixer=mixer) for mixer, one in zip(traits.mixers, layers, strict=True))


def norm_eps(fields: Fields, key: str) -> float:
    """Return the number added to the mean square in RMSNorm. Raises CheckpointError unless it is between 0 and 1."""
    value = fields.number(key, 1e-6)
    if not 0 <= value < 1:
        raise CheckpointError(f"{fields.where}: {key}", "must be between 0 and 1", value)
    return value


def _family(fields: Fields) -> str:
    by_class = {family.architecture: name for name, family in families().items()}
    names = fields.texts("architectures") or []
    if not names and fields.table.get("model_type") in families():  # files written by hand name only the type
        return str(fields.table["model_type"])
    for name in names:
        if name in by_class:
            return by_class[name]
    got = ", ".join(names) or fields.table.get("model_type") or "nothing"
    known = ", ".join((*by_class, *COMPOSITES, *WORDS_ONLY))
    raise CheckpointError(f"{fields.where}: architectures", "is not an architecture that Ingle knows", got, f"Known: {known}.")


def _head_dim(fields: Fields, usual: int, hidden: int, heads: int) -> int:
    if fields.table.get("head_dim") is not None or usual:
        return fields.whole("head_dim", usual)
    if heads < 1 or hidden % heads:
        raise CheckpointError(f"{fields.where}: hidden_size", f"must be a multiple of num_attention_heads = {heads}", hidden)
    return hidden // heads


def _check_whole_layers(config: ModelConfig) -> None:
    """Raise ConfigError for layers that no class of Hugging Face has: some of their groups, sinks, memories, or different windows."""
    everything = tuple(range(config.num_kv_heads))
    attentions = [layer for layer in config.layers if layer.mixer == "attention"]
    windows = {layer.window for layer in attentions if layer.retrieval != everything}
    plain = all(
        layer.retrieval == everything or (not layer.retrieval and not layer.sinks and layer.memory == "none") for layer in attentions
    )
    if not plain or len(windows) > 1:
        raise ConfigError("layers", f"cannot be written as {config.family}: only whole layers with one window can", windows)
