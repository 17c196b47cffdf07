"""Rotary position embedding: its settings in `config.json`, and the inverse frequencies that follow.

Source: RoFormer arXiv 2104.09864; YaRN arXiv 2309.00071; Llama 3.1 report arXiv 2407.21783; the formulas, their order and their
float32 rounding are those of transformers' `modeling_rope_utils.py`, so that logits agree.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig, Rope
from ingle.model.fields import Fields

_KINDS = ("default", "linear", "llama3", "yarn", "longrope")
Turns = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Frequencies and scales of cos and sin, float32 [head_dim / 2] each."""


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
