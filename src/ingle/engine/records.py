"""The records of a packed model, which tell the kernels its sizes and the addresses of its weights (kernels/layout.py)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.core.state import CACHES, StateLayout
from ingle.engine.memory import remembering, up32
from ingle.engine.packing import VECTOR, PackInfo
from ingle.engine.sublayer_records import Linear, Vector, experts_record, mixer_record
from ingle.kernels import layout as at

Array = npt.NDArray[Any]
_LINEARS = {
    at.LINEAR_Q: "self_attn.q_proj", at.LINEAR_K: "self_attn.k_proj", at.LINEAR_V: "self_attn.v_proj", at.LINEAR_O: "self_attn.o_proj",
    at.LINEAR_GATE: "mlp.gate_proj", at.LINEAR_UP: "mlp.up_proj", at.LINEAR_DOWN: "mlp.down_proj",
}  # fmt: skip
_HEAD_NORMS = {at.NORM_Q: "self_attn.q_norm", at.NORM_K: "self_attn.k_norm"}
_MEMORY = {
    at.QUERY_MAP: "q_map.weight", at.KEY_MAP: "k_map.weight", at.DECAY: "decay.weight", at.DECAY_BIAS: "decay.bias",
    at.WRITE: "write.weight", at.WRITE_BIAS: "write.bias", at.GATE: "gate.weight", at.GATE_BIAS: "gate.bias",
    at.AGE: "age",
}  # fmt: skip


def factors(config: ModelConfig) -> Array:
    """Return the float32 that a model's record points at (`kernels.layout.FACTORS`)."""
    ways = config.ways
    scale = ways.attention_scale or config.head_dim**-0.5
    return np.array([config.norm_eps, ways.embedding_scale, ways.residual_scale, scale, ways.logit_scale], np.float32)


def _ways(config: ModelConfig) -> dict[int, int]:
    """Return the fields of a model's record that tell its family's ways."""
    ways = config.ways
    return {
        at.ACTIVATION: ("silu", "gelu").index(ways.activation), at.APART: ways.apart, at.WHOLE_NORM: config.qk_norm and ways.whole_norm,
        at.ROPES: len(config.ropes), at.OUTPUT_GATED: ways.gated,
    }  # fmt: skip


def _norms(config: ModelConfig) -> dict[int, str]:
    """Return the fields of a layer's record that are addresses of norms, and the norms' names."""
    (first, second), (of_attention, of_mlp) = config.ways.norm_names
    return {at.NORM_1: first, at.NORM_2: second, at.NORM_O: of_attention, at.NORM_DOWN: of_mlp} | _HEAD_NORMS


def model_records(info: PackInfo, config: ModelConfig, layout: StateLayout, weights: Array, numbers: Array) -> tuple[Array, list[Array]]:
    """Return one array with the records of the model, its layers and their linears, and arrays that must live as long beside the weights.

    config: the pack's, or one with other layers; numbers: its `factors`. Of a layer in which fewer groups have a memory than in the pack,
    the rest's tensors are copied, because the kernels want them side by side: 50 KB for each memory of heads of 64.
    """
    groups, base, copied = config.num_kv_heads, weights.ctypes.data, list[Array]()
    layer_size = at.PLACES + at.PLACE_KINDS * groups
    layers_at = at.MODEL + 2 * at.DESCRIPTOR
    records = np.zeros(layers_at + layer_size * len(config.layers), np.int64)
    address = records.ctypes.data

    def linear(name: str) -> list[int]:
        place = info.places[f"{name}.weight"]
        planes = [base + offset for offset, _ in place.planes]
        bias = info.places.get(f"{name}.bias")
        none = [0] * (3 - len(planes))
        return [place.kind, up32(place.rows), up32(place.columns), *planes, *none, base + bias.planes[0][0] if bias else 0]

    def vector(name: str) -> int:
        return base + info.places[name].planes[0][0] if name in info.places else 0

    records[at.MODEL : at.MODEL + at.DESCRIPTOR] = linear("model.embed_tokens")
    head = "lm_head" if "lm_head.weight" in info.places else "model.embed_tokens"
    records[at.MODEL + at.DESCRIPTOR : layers_at] = linear(head)
    quantised = any(place.kind >= at.FLOAT_KINDS for place in info.places.values())
    model = {
        at.LAYERS: len(config.layers), at.HIDDEN: config.hidden_size, at.HIDDEN_PADDED: up32(config.hidden_size),
        at.MLP_PADDED: up32(config.intermediate_size), at.HEADS: config.num_heads, at.GROUPS: groups, at.DIM: config.head_dim,
        at.WIDTH: layout.width, at.CACHE: CACHES.index(layout.dtype), at.QUANTISED: quantised, at.EMBEDDING: address + 8 * at.MODEL,
        at.HEAD: address + 8 * (at.MODEL + at.DESCRIPTOR), at.NORM: vector("model.norm.weight"), at.LAYER: address + 8 * layers_at,
        at.FACTORS: numbers.ctypes.data,
        at.MOST_MEMORIES: (layout.memory_places >= 0).sum(axis=1).max(), at.WINDOWS: len(remembering(layout)),
        at.BLOCK_BYTES: layout.block_elements * np.dtype(layout.dtype).itemsize, at.STREAMING: layout.rings_shape[1],
    }  # fmt: skip
    for field, value in (model | _ways(config)).items():
        records[field] = value
    for i, spec in enumerate(config.layers):
        layer = records[layers_at + i * layer_size : layers_at + (i + 1) * layer_size]
        layer[at.ROPE] = config.rope_of(i)
        copied += _parts(info, config, layout, i, layer, linear, vector)
        layer[at.WINDOW], layer[at.SINKS] = spec.window, spec.sinks
        layer[at.SINK_BLOCKS], layer[at.RING_BLOCKS] = layout.ring_blocks[i]
        memories = spec.remembering(groups)
        places = layer[at.PLACES :].reshape(at.PLACE_KINDS, groups)
        places[:3] = layout.page_slots[i], layout.ring_slots[i], layout.memory_places[i]
        places[3, : len(memories)] = memories
        if memories:
            layer[at.REMEMBERING], layer[at.WINDOW_NUMBER] = len(memories), remembering(layout).index((spec.window, spec.sinks))
            had = info.config.layers[i].remembering(groups)
            for field, name in _MEMORY.items():
                layer[field] = vector(full := f"model.layers.{i}.self_attn.memory.{name}")
                if memories != had:
                    copied.append(_some_memories(info, weights, full, [had.index(group) for group in memories], len(had)))
                    layer[field] = copied[-1].ctypes.data
    return records, copied


def _parts(
    info: PackInfo, config: ModelConfig, layout: StateLayout, index: int, layer: Array, linear: Linear, vector: Vector
) -> list[Array]:
    """Write a layer's norms and linears, or what stands in their place, to its record; return the records of the latter."""
    for field, name in _norms(config).items():
        layer[field] = vector(f"model.layers.{index}.{name}.weight")
    for field, name in _LINEARS.items():
        if f"model.layers.{index}.{name}.weight" in info.places:
            layer[field : field + at.DESCRIPTOR] = linear(f"model.layers.{index}.{name}")
    layer[at.MIXER], mixer = mixer_record(config, layout, index, linear, vector)
    others = {at.SUBLAYER: mixer, at.EXPERTS: experts_record(config, index, linear)}
    made = {field: record for field, record in others.items() if record is not None}
    for field, record in made.items():
        layer[field] = record.ctypes.data
    return list(made.values())


def _some_memories(info: PackInfo, weights: Array, name: str, chosen: list[int], count: int) -> Array:
    """Return a copy of the chosen ones' numbers, of a tensor of `count` memories."""
    place = info.places[name]
    [(offset, size)] = place.planes
    numbers = weights[offset : offset + size].view(np.float32)
    if place.kind == VECTOR:  # it is padded
        numbers = numbers[: place.columns]
    return np.ascontiguousarray(numbers.reshape(count, -1)[chosen])
