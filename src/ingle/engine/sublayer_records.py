"""Records of what stands in the place of attention or of the plain MLP (kernels/sublayer_layout.py), and of rows' ways to experts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.core.state import StateLayout
from ingle.engine.memory import up32
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub

Array = npt.NDArray[Any]
Linear = Callable[[str], list[int]]
"""Gives a linear's record, by its name."""
Vector = Callable[[str], int]
"""Gives a tensor's address, by its name; 0 = there is none."""


def mixer_record(config: ModelConfig, layout: StateLayout, index: int, linear: Linear, vector: Vector) -> tuple[int, Array | None]:
    """Return which mixer a layer has, and its record; None for attention, whose record is the layer's own."""
    record, mixer = np.zeros(sub.MIXER, np.int64), config.layers[index].mixer
    if mixer == "attention":
        return sub.ATTENTION, None
    record[sub.TAIL] = layout.mixed_places[index]
    if mixer == "convolution":
        own = config.convolution
        assert own is not None, "ModelConfig checks it"
        name = f"model.layers.{index}.conv"
        record[[sub.LENGTH, sub.CHANNELS]] = own.length, config.hidden_size
        record[[sub.TAPS, sub.TAP_BIAS]] = vector(f"{name}.conv.weight"), vector(f"{name}.conv.bias")
        _put(record, {sub.IN: "in_proj", sub.OUT: "out_proj"}, name, linear)
        return sub.CONVOLUTION, record
    rule = config.delta
    assert rule is not None, "ModelConfig checks it"
    name = f"model.layers.{index}.linear_attn"
    record[[sub.LENGTH, sub.CHANNELS, sub.TAPS]] = rule.length, rule.channels, vector(f"{name}.conv1d.weight")
    record[sub.DELTA_STATE] = record[sub.TAIL] + (rule.length - 1) * rule.channels
    record[[sub.KEY_HEADS, sub.VALUE_HEADS, sub.HEAD, sub.TILED]] = rule.key_heads, rule.value_heads, rule.dim, rule.tiled
    record[[sub.RATES, sub.STEPS, sub.GATE_NORM]] = [vector(f"{name}.{part}") for part in ("A_log", "dt_bias", "norm.weight")]
    parts = {sub.IN: "in_proj_qkv", sub.GATING: "in_proj_z", sub.WRITING: "in_proj_b", sub.FADING: "in_proj_a", sub.OUT: "out_proj"}
    _put(record, parts, name, linear)
    return sub.DELTA, record


def experts_record(config: ModelConfig, index: int, linear: Linear) -> Array | None:
    """Return the record of a layer's mixture of experts; None where it has the plain MLP."""
    experts, name = config.experts_at(index), f"model.layers.{index}.mlp"
    if experts is None:
        return None
    record = np.zeros(sub.FIRST_EXPERT + experts.count * sub.EXPERT, np.int64)
    record[[sub.COUNT, sub.CHOSEN, sub.NORMED, sub.PADDED]] = experts.count, experts.chosen, experts.normed, up32(experts.width)
    _put(record, {sub.ROUTER: "gate"}, name, linear)
    for number in range(experts.count):
        first = sub.FIRST_EXPERT + number * sub.EXPERT
        parts = {first + i * at.DESCRIPTOR: f"{part}_proj" for i, part in enumerate(("gate", "up", "down"))}
        _put(record, parts, f"{name}.experts.{number}", linear)
    return record


def _put(record: Array, parts: dict[int, str], name: str, linear: Linear) -> None:
    for field, part in parts.items():
        record[field : field + at.DESCRIPTOR] = linear(f"{name}.{part}")
