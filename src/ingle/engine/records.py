"""The records that tell the decoder step's kernels where a model and a step lie in memory (kernels/layout.py), and the step's buffers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import Experts, ModelConfig
from ingle.core.state import CACHES, StateLayout
from ingle.engine.packs import VECTOR, PackInfo
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub

# The buffers of a step, as large as the largest step so far, and the record that tells the kernels their addresses.


Array = npt.NDArray[Any]


def up32(n: int) -> int:
    """Round up to a multiple of 32."""
    return -(-n // 32) * 32


def remembering(layout: StateLayout) -> list[tuple[int, int]]:
    """Return the different (window, sinks) of layers with recurrent memories, ascending."""
    return sorted({(spec.window, spec.sinks) for spec in layout.layers if spec.remembering(layout.kv_groups)})


def _widths(config: ModelConfig) -> tuple[int, int, int, int]:
    """Return the padded numbers of a row in QUERIES, in KEYS and VALUES_NEW, in ATTENDED, and in the MLP; other mixers use them, too."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attended, mlp = queries, config.intermediate_size
    queries *= 1 + config.ways.gated
    if config.convolution is not None:
        queries, attended = max(queries, 3 * config.hidden_size), max(attended, config.hidden_size)
    if (rule := config.delta) is not None:
        values = rule.value_heads * rule.dim
        queries, keys, attended, mlp = max(queries, rule.channels), max(keys, values), max(attended, values), max(mlp, rule.value_heads)
    return up32(queries), up32(keys), up32(attended), up32(mlp)


class StepMemory:
    """float32 and int64 buffers for up to `rows` rows, `outputs` rows of logits, `parts` partial attention results, and adapters of rank
    `inner`, on up to `threads` threads. Each step sets its own thread count and barrier."""

    def __init__(self, config: ModelConfig, layout: StateLayout, threads: int, rows: int, outputs: int, parts: int, inner: int) -> None:
        self.rows, self.outputs, self.parts, self.inner = rows, outputs, parts, inner
        self.record = np.zeros(at.STEP, np.int64)
        self._kept: list[Array] = []
        width, shared = layout.width, config.queries_per_group
        hidden, slots = up32(config.hidden_size), rows * (config.experts.chosen if config.experts else 0)
        queries, keys, attended, mlp = _widths(config)
        inner_floats = max(rows * mlp, slots * up32(config.experts.width) if config.experts else 0)
        part = at.part_floats(width)
        memories = int((layout.memory_places >= 0).sum(axis=1).max())
        self.windows = remembering(layout)
        floats = {
            at.STREAM: rows * hidden, at.QUERIES: rows * queries, at.KEYS: rows * keys, at.VALUES_NEW: rows * keys,
            at.ROTATED: config.num_kv_heads * (rows * shared + at.TILE_ROWS) * width, at.PARTS: parts * part,
            at.GATED: inner_floats, at.LIFTED: inner_floats, at.SCRATCH: threads * at.scratch_floats(width),
            at.OUTCOME: rows * hidden if config.ways.apart else 0,
            at.INNER: 3 * rows * at.inner_floats(inner), at.FEATURES: rows * memories * at.feature_floats(width, shared),
        }  # fmt: skip
        for field, count in floats.items():
            self.record[field] = self._new(count, np.float32).ctypes.data
        for field, count in (
            (at.NORMED, rows * hidden), (at.ATTENDED, rows * attended), (at.MIXED, inner_floats), (at.FINAL, outputs * hidden),
        ):  # fmt: skip
            self._activations(self.record[field : field + at.ACTIVATIONS], count)
        self.routes = np.zeros(sub.ROUTES, np.int64)
        if config.experts is not None:
            self._make_routes(config.experts, rows, slots, hidden)
        self.logits = self._new(outputs * up32(config.vocab_size), np.float32).reshape(outputs, -1)
        self.tokens, self.owners, self.positions = (self._new(rows, np.int64) for _ in range(3))
        pairs = config.head_dim // 2
        angles = (rows, len(config.ropes), pairs)
        self.cosine, self.sine = (self._new(math.prod(angles), np.float32).reshape(angles) for _ in range(2))
        back = (rows, len(self.windows), pairs)
        self.back_cosine, self.back_sine = (self._new(math.prod(back), np.float32)[: math.prod(back)].reshape(back) for _ in range(2))
        self.held = self._new(math.prod(back[:2]), np.float32)[: math.prod(back[:2])].reshape(back[:2])
        self.wanted = self._new(outputs, np.int64)
        self.counters = self._new(len(config.layers) * at.PHASES + 1, np.int64)
        for field, array in (
            (at.LOGITS, self.logits), (at.TOKENS, self.tokens), (at.SEGMENT_OF, self.owners), (at.POSITIONS, self.positions),
            (at.COSINE, self.cosine), (at.SINE, self.sine), (at.OUTPUTS, self.wanted), (at.COUNTERS, self.counters),
            (at.ROUTES, self.routes), (at.BACK_COSINE, self.back_cosine), (at.BACK_SINE, self.back_sine), (at.HELD, self.held),
        ):  # fmt: skip
            self.record[field] = array.ctypes.data
        self.record[at.INNER_WIDTH] = at.inner_floats(inner)

    def _make_routes(self, experts: Experts, rows: int, slots: int, hidden: int) -> None:
        entries = 1 + min(experts.count, slots) * sub.ENTRY
        for field, count, dtype in (
            (sub.ROUTED, rows * up32(experts.count), np.float32), (sub.SHARES, slots, np.float32), (sub.SLOTS, slots, np.int64),
            (sub.OWNERS, slots, np.int64), (sub.ENTRIES, entries, np.int64), (sub.EXPERT_OUT, slots * hidden, np.float32),
        ):  # fmt: skip
            self.routes[field] = self._new(count, dtype).ctypes.data
        self._activations(self.routes[sub.SORTED :], slots * hidden)

    def _activations(self, record: Array, numbers: int) -> None:
        """Write the addresses of new activations of so many numbers."""
        record[at.VALUES] = self._new(numbers, np.float32).ctypes.data
        record[at.BYTES] = self._new(2 * numbers, np.int8).ctypes.data
        for plane, dtype in ((at.SCALE, np.float32), (at.TOTAL, np.float32), (at.OFFSET, np.int32), (at.HALVES, np.int32)):
            record[plane] = self._new(2 * numbers // 32, dtype).ctypes.data

    def fits(self, rows: int, outputs: int, parts: int, inner: int) -> bool:
        """Return whether a step of this size needs no new buffers."""
        return rows <= self.rows and outputs <= self.outputs and parts <= self.parts and inner <= self.inner

    def _new(self, count: int, dtype: Any) -> Array:
        array = np.zeros(max(count, 1), dtype)
        self._kept.append(array)
        return array


# Records of what stands in the place of attention or of the plain MLP (kernels/sublayer_layout.py), and of rows' ways to experts.


Linear = Callable[[str], list[int]]  # gives a linear's record, by its name
Vector = Callable[[str], int]  # gives a tensor's address, by its name; 0 = there is none


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


# The records of a packed model, which tell the kernels its sizes and the addresses of its weights (kernels/layout.py).


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
