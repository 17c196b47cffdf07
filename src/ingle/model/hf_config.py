"""Convert Hugging Face's `config.json` to `ModelConfig`, and back for export.

Hugging Face has no class for hybrids. They are written under our own architecture, so that no other program takes them for plain
transformers: the family's own keys, and `ingle` with the family and each layer's spec.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.spec import LayerSpec, ModelConfig, Rope, transformer_layers
from ingle.model.family import Traits, families
from ingle.model.fields import Fields
from ingle.model.tensor import Tensor

# Models of several parts: their language model is read as any other. The eye of Idefics3 and SmolVLM is kept apart; what other models have
# beside words is left out, which `left_out` tells.


COMPOSITES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
_TYPES = ("idefics3", "smolvlm")
# Architectures of which the language model alone is run, and its family.
WORDS_ONLY = {"Gemma3ForConditionalGeneration": "gemma3_text", "Qwen3_5ForConditionalGeneration": "qwen3_5_text"}
_WORDS = ("model.language_model.", "language_model.model.")
_HEADS = ("language_model.lm_head.",)
# Parts of these that are left out, by the module's name, with or without `model.` before it.
_LEFT_OUT = {"visual": "eyes", "vision_tower": "eyes", "multi_modal_projector": "eyes", "mtp": "guesses of later tokens"}
_TEXT, _EYE = "model.text_model.", ("model.vision_model.", "model.connector.")


def is_composite(table: Mapping[str, Any], where: str = "config.json") -> bool:
    """Return whether a `config.json` is one of these models'."""
    names = Fields(table, where).texts("architectures")
    return any(name in COMPOSITES for name in names) if names else table.get("model_type") in _TYPES


def text_table(table: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], str]:
    """Return the language model's part of a `config.json`, and what to call it in errors; any other model's unchanged."""
    fields = Fields(table, where)
    family = _words_only(table, where)
    if family is not None:
        text = {key: value for key, value in fields.table_of("text_config").items() if key != "architectures"}
        tied = {} if table.get("tie_word_embeddings") is None else {"tie_word_embeddings": table["tie_word_embeddings"]}
        return {**text, **tied, "model_type": family}, f"{where}: text_config"
    if not is_composite(table, where):
        return table, where
    # The text part says so too, and transformers doesn't look there; its `architectures` is a class that nobody has.
    tied = {"tie_word_embeddings": fields.flag("tie_word_embeddings", False)}
    text = {key: value for key, value in fields.table_of("text_config").items() if key != "architectures"}
    return {"model_type": "llama", **text, **tied}, f"{where}: text_config"


def parted_tensors(table: Mapping[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the language model's tensors under the usual names, and those of the eye."""
    if _words_only(table) is not None:
        return {_name(name): tensor for name, tensor in tensors.items() if _part(name) not in _LEFT_OUT}, {}
    if not is_composite(table):
        return tensors, {}
    eye = {name: tensor for name, tensor in tensors.items() if name.startswith(_EYE)}
    text = {name: tensor for name, tensor in tensors.items() if name not in eye}
    return {"model." + name.removeprefix(_TEXT) if name.startswith(_TEXT) else name: tensor for name, tensor in text.items()}, eye


def left_out(table: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return what of a model is not run, in words, by its `config.json` and the names of its tensors; "" = all of it is run."""
    if _words_only(table) is None:
        return ""
    return " and ".join(sorted({_LEFT_OUT[part] for part in map(_part, names) if part in _LEFT_OUT}))


def _words_only(table: Mapping[str, Any], where: str = "config.json") -> str | None:
    """Return the family of a model whose language model alone is run; None for any other."""
    return next((WORDS_ONLY[name] for name in Fields(table, where).texts("architectures") or () if name in WORDS_ONLY), None)


def _part(name: str) -> str:
    return name.removeprefix("model.").partition(".")[0]


def _name(name: str) -> str:
    """Return a tensor's usual name."""
    for prefix in _WORDS:
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.") if name.startswith(_HEADS) else name


# Rotary position embedding: its settings in `config.json`, and the inverse frequencies that follow.
# Source: RoFormer arXiv 2104.09864; YaRN arXiv 2309.00071; Llama 3.1 report arXiv 2407.21783; the formulas, their order and their float32
# rounding are those of transformers' `modeling_rope_utils.py`, so that logits agree.


_KINDS = ("default", "linear", "llama3", "yarn", "longrope")
Turns = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # frequencies and scales of cos and sin, float32 [head_dim / 2] each


def all_frequencies(config: ModelConfig) -> list[Turns]:
    """Return `inverse_frequencies` for each of `config.ropes`; where there is none, nothing turns."""
    pairs = config.head_dim // 2
    nothing = np.zeros(pairs, np.float32), np.ones(pairs, np.float32)
    return [nothing if rope is None else inverse_frequencies(replace(config, rope=rope)) for rope in config.ropes]


def inverse_frequencies(config: ModelConfig) -> Turns:
    """Return the inverse frequencies, which turn a position into an angle, and the scales of cos and sin (1 except for `yarn` and
    `longrope`). Where only a part of a head is turned, the other frequencies are 0: `Checkpoint` orders rows so that pairs are halves."""
    turned = config.ways.turned or config.head_dim
    frequencies, rest = _frequencies(config.rope, turned), (config.head_dim - turned) // 2
    scale = config.rope.attention_factor if config.rope.kind in ("yarn", "longrope") else 1.0
    scales = np.full(len(frequencies), scale, np.float32)
    return np.concatenate([frequencies, np.zeros(rest, np.float32)]), np.concatenate([scales, np.ones(rest, np.float32)])


def _frequencies(rope: Rope, dim: int) -> npt.NDArray[np.float32]:
    wave = np.float32(rope.theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    plain: npt.NDArray[np.float32] = np.float32(1.0) / wave
    if rope.kind == "linear":
        return plain / np.float32(rope.factor)
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        return _yarn(wave, rope, dim)
    if rope.kind == "longrope":
        plain = (np.float32(1.0) / (np.array(rope.divisors, np.float32) * wave)).astype(np.float32)
    return plain


def turned_part(table: Mapping[str, Any], where: str, usual: float = 1.0) -> float:
    """Return the part of a head that RoPE turns; where nothing is said, `usual`. Raises CheckpointError unless it is above 0 and at most
    1."""
    fields = Fields(table, where)
    inner = fields.table_of("rope_parameters") or fields.table_of("rope_scaling")
    part = Fields(inner, where).number("partial_rotary_factor", fields.number("partial_rotary_factor", usual))
    if not 0 < part <= 1:
        raise CheckpointError(f"{where}: partial_rotary_factor", "must be above 0 and at most 1", part)
    return part


def rope_from_hf(table: Mapping[str, Any], context_length: int, where: str) -> Rope:
    """Return the `Rope` of a `config.json`, old style (`rope_theta` + `rope_scaling`) or new (`rope_parameters`).

    Raises CheckpointError for an unknown kind, and for missing or impossible values.
    """
    fields = Fields(table, where)
    key = "rope_parameters" if table.get("rope_parameters") else "rope_scaling"
    said = fields.table_of(key)
    inner = Fields(Fields(said, f"{where}: {key}").table_of("full_attention") or said, f"{where}: {key}")
    kind = inner.text("rope_type", inner.text("type", "default"))
    if kind not in _KINDS:
        cure = f"Known kinds: {', '.join(_KINDS)}."
        raise CheckpointError(f"{where}: {key}.rope_type", "is a kind of RoPE that Ingle does not know", kind, cure)
    theta = inner.number("rope_theta", fields.number("rope_theta", 10_000.0))
    if kind == "default":
        return check_rope(Rope(theta=theta), where)
    original = inner.whole("original_max_position_embeddings", context_length)
    original = fields.whole("original_max_position_embeddings", original)
    if kind == "linear":
        return check_rope(Rope(theta, "linear", inner.number("factor")), where)
    if kind == "llama3":
        low, high = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        return check_rope(Rope(theta, "llama3", inner.number("factor"), original, low, high), where)
    if kind == "longrope":
        factor = inner.number("factor", context_length / max(original, 1))
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
        divisors = inner.table.get("short_factor")
        if not isinstance(divisors, list) or not all(isinstance(one, int | float) and 0 < one < 1e6 for one in divisors):
            raise CheckpointError(f"{where}: {key}.short_factor", "must be a list of numbers above 0", repr(divisors)[:80])
        attention = inner.number("attention_factor", usual)
        rope = Rope(theta, "longrope", 1.0, original, attention_factor=attention, divisors=tuple(map(float, divisors)))
        return check_rope(rope, where)
    if inner.flag("truncate", True) is False:
        raise CheckpointError(f"{where}: {key}.truncate", "must be true for yarn", False)
    factor = inner.number("factor", context_length / max(original, 1))
    fast, slow = inner.number("beta_fast", 32.0) or 32.0, inner.number("beta_slow", 1.0) or 1.0
    attention = inner.number("attention_factor", yarn_attention(factor, inner.number("mscale", 0.0), inner.number("mscale_all_dim", 0.0)))
    return check_rope(Rope(theta, "yarn", factor, original, beta_fast=fast, beta_slow=slow, attention_factor=attention), where)


def rope_to_hf(rope: Rope) -> dict[str, Any]:
    """Return the keys of `config.json` that `rope_from_hf`, and every transformers since 4.43, reads."""
    table: dict[str, Any] = {"rope_theta": rope.theta}
    if rope.kind == "default":
        return table
    scaling: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind in ("llama3", "yarn"):
        scaling["original_max_position_embeddings"] = rope.original_context
    if rope.kind == "llama3":
        scaling |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.kind == "yarn":
        scaling |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "attention_factor": rope.attention_factor}
    if rope.kind == "longrope":  # both alike: the long ones are of texts that this context does not hold
        divisors = list(rope.divisors)
        scaling |= {"short_factor": divisors, "long_factor": divisors, "attention_factor": rope.attention_factor}
        return table | {"rope_scaling": scaling, "original_max_position_embeddings": rope.original_context}
    return table | {"rope_scaling": scaling}


def llama3_from_factors(factors: npt.NDArray[np.float32], theta: float, head_dim: int, context_length: int, where: str) -> Rope:
    """Return the `llama3` Rope with these divisors (GGUF's `rope_freqs.weight`, [head_dim / 2]), found and then verified.

    GGUF keeps only the divisors. Llama 3's own constants are tried first, at the usual context lengths; failing that, two of the rising
    divisors determine the line between them. Raises CheckpointError where no setting gives these divisors.
    """
    if factors.shape != (head_dim // 2,) or not np.isfinite(factors).all() or (factors < 1.0).any():
        raise CheckpointError(f"{where}: rope_freqs.weight", f"must be {head_dim // 2} divisors of at least 1", factors.shape)
    largest = float(factors.max())
    if largest == 1.0:
        return Rope(theta=theta)
    contexts = (8192, 4096, 2048, 16384, 32768, 65536, 131072, context_length)
    candidates = [Rope(theta, "llama3", largest, length) for length in contexts]
    wave = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    rising = np.flatnonzero((factors > 1.0 + 1e-6) & (factors < largest * (1 - 1e-6)))
    if len(rising) >= 2:
        smooth = (1 / factors[rising].astype(float) - 1 / largest) / (1 - 1 / largest)
        slope, offset = np.polyfit(1 / wave[rising], smooth, 1)  # smooth = (original / wave − low) / (high − low), with low = 1
        if slope > 0 and offset < 0:
            candidates.append(Rope(theta, "llama3", largest, round(-slope / offset), 1.0, 1.0 - 1.0 / float(offset)))
    plain = np.float32(1.0) / (np.float32(theta) ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)))
    for rope in candidates:
        if np.allclose(plain / _llama3(plain, rope), factors, rtol=2e-5, atol=0):
            return rope
    raise CheckpointError(
        f"{where}: rope_freqs.weight", "must follow Llama 3's rule", factors, "Use the safetensors release of this model."
    )


def check_rope(rope: Rope, where: str) -> Rope:
    """Return the Rope. Raises CheckpointError if it would divide by zero or run backwards."""
    limits = {"rope_theta": 1.0 < rope.theta < 1e15, "factor": 1.0 <= rope.factor < 1e6, "attention_factor": rope.attention_factor > 0.0}
    if rope.kind in ("llama3", "yarn"):
        limits["original_max_position_embeddings"] = rope.original_context >= 1
        limits["low_freq_factor, high_freq_factor"] = 0.0 < rope.low_freq_factor < rope.high_freq_factor
        limits["beta_slow, beta_fast"] = 0.0 < rope.beta_slow <= rope.beta_fast
    if rope.kind == "longrope":
        limits["original_max_position_embeddings"] = rope.original_context >= 1
        limits["short_factor"] = bool(rope.divisors) and all(0 < one < 1e6 for one in rope.divisors)
    for name, holds in limits.items():
        if not holds:
            raise CheckpointError(f"{where}: {name}", "is outside of what RoPE can use", rope)
    return rope


def _llama3(plain: npt.NDArray[np.float32], rope: Rope) -> npt.NDArray[np.float32]:
    """Divide long wavelengths by the factor, leave short ones alone, with a ramp between. float32 [head_dim / 2] in and out."""
    wave = np.float32(2 * math.pi) / plain
    smooth = (np.float32(rope.original_context) / wave - np.float32(rope.low_freq_factor)) / np.float32(
        rope.high_freq_factor - rope.low_freq_factor
    )
    factor = np.float32(rope.factor)
    long, short = wave > rope.original_context / rope.low_freq_factor, wave < rope.original_context / rope.high_freq_factor
    ramp = (np.float32(1.0) - smooth) * plain / factor + smooth * plain
    return np.asarray(np.where(long, plain / factor, np.where(short, plain, ramp)), np.float32)


def _yarn(wave: npt.NDArray[np.float32], rope: Rope, dim: int) -> npt.NDArray[np.float32]:
    """Return YaRN's blend of interpolated and untouched frequencies (arXiv 2309.00071, section 3.2)."""

    def dimension(rotations: float) -> float:
        return dim * math.log(rope.original_context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = max(math.floor(dimension(rope.beta_fast)), 0), min(math.ceil(dimension(rope.beta_slow)), dim - 1)
    width = np.float32(high - low if high != low else 0.001)
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / width, 0, 1).astype(np.float32)
    untouched = np.float32(1.0) - ramp
    interpolated = np.float32(1.0) / (np.float32(rope.factor) * wave)
    blended: npt.NDArray[np.float32] = interpolated * (np.float32(1.0) - untouched) + untouched / wave
    return blended


def yarn_attention(factor: float, mscale: float = 0.0, mscale_all_dim: float = 0.0) -> float:
    """Return YaRN's temperature as a multiplier of cos and sin (arXiv 2309.00071, eq. 22; the `mscale` pair is DeepSeek's)."""
    if factor <= 1.0:
        return 1.0
    if mscale > 0 and mscale_all_dim > 0:
        return (0.1 * mscale * math.log(factor) + 1.0) / (0.1 * mscale_all_dim * math.log(factor) + 1.0)
    return 0.1 * math.log(factor) + 1.0


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
        config = replace(config, delta=replace(config.delta, tiled=False))  # `model.family` orders the heads
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
