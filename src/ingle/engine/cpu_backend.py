"""The CPU backend: packed weights, the decoder step in machine code, and any number of threads. No PyTorch."""

import copy
import math
import mmap
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError, DeltaError
from ingle.core.media import Vectors
from ingle.core.spec import Experts, LayerSpec, ModelConfig
from ingle.core.state import CACHES, STEP_TOKENS, State, StateLayout, largest
from ingle.engine.backend import Adapter, Additions, Backend, NotFinite, Segment, check_segment, pack_adapter
from ingle.engine.packs import VECTOR, PackInfo, cache_dtype, unreached
from ingle.engine.threads import Cores, Team
from ingle.home.lean import WEIGHTS
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub
from ingle.kernels.jit import ADAPTER_KERNELS, kernel
from ingle.model.hf_config import all_frequencies

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


class CpuBackend:
    """A packed model on the CPU; see `engine.backend.Backend` for the contract."""

    def __init__(self, folder: Path, info: PackInfo, cores: Cores | None = None, cache: str = "float16") -> None:
        self.digest = info.digest if cache == cache_dtype("auto", info.format) else digest_json([info.digest, cache])
        self._info, self._cores = info, cores or Cores()
        with (folder / WEIGHTS).open("rb") as file:
            self._weights = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        self._factors, self._turns = factors(info.config), all_frequencies(info.config)
        self._unreached = unreached(info, cache)
        self._kernel = kernel("decoder_step", self._unreached | ADAPTER_KERNELS)
        self._team, self._lock = Team(self._cores.most), threading.Lock()
        self._arrange(info.config, cache)

    def _arrange(self, config: ModelConfig, cache: str) -> None:
        """Set what follows from how its layers look back."""
        self.config = config
        self.layout = StateLayout.of(config, cache)
        self._remembers = self.layout.memory_floats > 0
        self._records, self._copied = model_records(self._info, config, self.layout, self._weights, self._factors)
        self._memory = self._new_memory(1, 1, 1, 0)

    def seeing(self, layers: tuple[LayerSpec, ...]) -> "CpuBackend":
        """Return a backend with other layers over the same weights, which lie in memory once; it takes milliseconds.

        Its states and its digest are its own; adapters made by this backend serve both. Steps of the two wait for each other.
        Raises ConfigError for a memory that the weights don't have, and for layers that can't be.
        """
        config, had = self.config.with_layers(layers), [spec.remembering(self.config.num_kv_heads) for spec in self._info.config.layers]
        for i, spec in enumerate(layers):
            if lacking := set(spec.remembering(config.num_kv_heads)) - set(had[i]):
                raise ConfigError(f"layers[{i}].memory", "must be of groups that have learnt one", sorted(lacking))
        other = copy.copy(self)
        if layers != self.config.layers:
            other.digest = digest_json([self.digest, to_table(layers)])
        other._kernel = kernel("decoder_step", self._unreached)  # an adapter may come with any segment
        other._arrange(config, self.layout.dtype)
        return other

    def new_state(self) -> State:
        """Return a state that has read nothing."""
        return State(self.layout)

    @property
    def exact_cuts(self) -> bool:
        """True: every row is computed by itself, in one order."""
        return True

    @property
    def runner(self) -> Backend:
        """This backend."""
        return self

    def lower(self, segment: Segment) -> Segment:
        """Return the segment unchanged."""
        return segment

    def filled_state(self, keys: Array, values: Array) -> State:
        """Return a state of tokens with these keys and values; see `Runner.filled_state`.

        Raises DeltaError for numbers that are too large, and for layers with recurrent memories, which take in keys before RoPE.
        """
        if self._remembers:
            cure = "Tune the weights instead, or put the prefix before the transformer that this model was made of."
            raise DeltaError("prefix", "can't stand before a model with recurrent memories", "virtual tokens", cure)
        if max(np.abs(keys).max(), np.abs(values).max()) > largest(self.layout.dtype):
            raise DeltaError("prefix", f"must hold numbers that {self.layout.dtype} can", "larger ones", "Set chat.cache to float32.")
        state = State(self.layout)
        for start in range(0, keys.shape[2], STEP_TOKENS):
            state.append(keys[:, :, start : start + STEP_TOKENS], values[:, :, start : start + STEP_TOKENS])
        return state

    def state_bytes(self, tokens: int) -> int:
        """Return the bytes of a state of so many tokens."""
        return self.layout.nbytes(tokens)

    def save_state(self, state: State, path: Path, digest: str = "") -> None:
        """Write a state to a file; see `Backend.save_state`."""
        state.save(path, digest or self.digest)

    def load_state(self, path: Path, digest: str = "") -> State:
        """Read a state from a file; see `Backend.load_state`."""
        return State.load(path, self.layout, digest or self.digest)

    def forward(self, segments: Sequence[Segment]) -> list[npt.NDArray[np.float32]]:
        """Read the tokens of every segment; see `Backend.forward`."""
        for segment in segments:
            check_segment(self.config, segment)
        with self._lock:
            longest = max((len(segment.ids) for segment in segments), default=0)
            results, broken = self._step(segments) if longest <= self.layout.step_tokens else self._steps(segments, longest)
            if broken:
                raise NotFinite(results, broken)
            return results

    def _step(self, segments: Sequence[Segment]) -> tuple[list[Array], list[int]]:
        """Run the kernel once: logits of every segment, and the numbers of segments whose memories are broken."""
        for segment in segments:
            segment.state.reserve(len(segment.ids))
        rows = sum(len(segment.ids) for segment in segments)
        threads = self._cores.threads(rows)
        row_counts, began = self._prepare(segments, threads), time.perf_counter()
        self._team.run(threads, self._kernel, self._records.ctypes.data, self._memory.record.ctypes.data)
        self._cores.saw(threads, rows, time.perf_counter() - began)
        results, row = [], 0
        for segment, count in zip(segments, row_counts, strict=True):
            segment.state.length += len(segment.ids)
            results.append(self._memory.logits[row : row + count, : self.config.vocab_size])
            row += count
        return results, np.flatnonzero(self._tables[0][:, at.BROKEN]).tolist()

    def _steps(self, segments: Sequence[Segment], longest: int) -> tuple[list[Array], list[int]]:
        """Do `_step` in several runs, for segments that are longer than the rings have room for."""
        size, parts, broken = self.layout.step_tokens, [list[Array]() for _ in segments], set[int]()
        for start in range(0, longest, size):
            turn = [i for i, segment in enumerate(segments) if len(segment.ids) > start]
            cut = []
            for segment in (segments[i] for i in turn):
                later = segment.logits == "last" and len(segment.ids) > start + size
                cut.append(replace(segment, ids=segment.ids[start : start + size], logits="none" if later else segment.logits))
            results, bad = self._step(cut)
            broken |= {turn[i] for i in bad}
            for i, rows in zip(turn, results, strict=True):
                parts[i].append(rows.copy())  # the next run writes over them
        return [np.concatenate(rows) for rows in parts], sorted(broken)

    def adapter(self, additions: Additions, digest: str) -> Adapter:
        """Prepare additions to linears, for the next step on. The first adapter loads two small kernels."""
        adapter = pack_adapter(self.config, additions, digest)
        step_kernel = kernel("decoder_step", self._unreached)
        with self._lock:
            self._kernel = step_kernel
        return adapter

    def _new_memory(self, rows: int, outputs: int, parts: int, inner: int) -> StepMemory:
        return StepMemory(self.config, self.layout, self._cores.most, rows, outputs, parts, inner)

    def _prepare(self, segments: Sequence[Segment], threads: int) -> list[int]:
        """Fill the step's record and buffers; return the number of logit rows for each segment."""
        counts = [len(segment.ids) for segment in segments]
        row_counts = [{"none": 0, "last": 1, "all": count}[segment.logits] for segment, count in zip(segments, counts, strict=True)]
        rows, outputs = sum(counts), sum(row_counts)
        table, tasks, parts = self._share_out(segments, rows, threads)
        inner = max((segment.adapter.width for segment in segments if segment.adapter is not None), default=0)
        memory = self._memory
        if not memory.fits(rows, outputs, parts, inner):
            sizes = (max(rows, memory.rows), max(outputs, memory.outputs), max(parts, memory.parts), max(inner, memory.inner))
            self._memory = memory = self._new_memory(*sizes)
        row, output, stacked = 0, 0, list[Array]()
        for number, (segment, count, want) in enumerate(zip(segments, counts, row_counts, strict=True)):
            start = segment.state.length
            memory.tokens[row : row + count] = segment.ids
            if segment.vectors:
                stacked += _numbered(memory.tokens[row : row + count], self.config.vocab_size, segment.vectors, len(stacked))
            memory.owners[row : row + count] = number
            memory.positions[row : row + count] = range(start, start + count)
            memory.wanted[output : output + want] = range(row + count - want, row + count)
            row, output = row + count, output + want
        self._turn(memory, rows)
        memory.counters[:] = 0
        record = memory.record
        record[at.BATCH], record[at.OUTPUT_COUNT], record[at.TASK_COUNT] = rows, outputs, len(tasks)
        record[at.SEGMENT_COUNT], record[at.THREADS], record[at.BARRIER] = len(segments), threads, self._team.meeting(threads)
        vectors = np.stack(stacked) if stacked else None
        self._tables = table, tasks, vectors  # kept alive for the kernel
        record[at.SEGMENTS], record[at.TASKS] = table.ctypes.data, tasks.ctypes.data
        if vectors is not None:
            record[at.VECTORS] = vectors.ctypes.data
        return row_counts

    def _turn(self, memory: StepMemory, rows: int) -> None:
        """Compute the angles by which RoPE turns each row and turned the key that now leaves each window, and the share of tokens that have
        left."""
        positions = memory.positions[:rows]
        for kind, (frequencies, scale) in enumerate(self._turns):
            angles = positions[:, None].astype(np.float32) * frequencies
            np.multiply(np.cos(angles), scale, out=memory.cosine[:rows, kind])
            np.multiply(np.sin(angles), scale, out=memory.sine[:rows, kind])
        frequencies, scale = self._turns[0]  # of layers with memories
        for i, (window, sinks) in enumerate(memory.windows):
            count = np.maximum(positions + (1 - window - sinks), 1)  # read only where at least one has
            np.log(count / (count + window), out=memory.held[:rows, i], casting="same_kind")
            angles = (positions[:, None] - window).astype(np.float32) * frequencies
            np.divide(np.cos(angles), scale, out=memory.back_cosine[:rows, i])
            np.divide(np.sin(angles), -scale, out=memory.back_sine[:rows, i])

    def _share_out(self, segments: Sequence[Segment], rows: int, threads: int) -> tuple[Array, Array, int]:
        """Return the record of every segment, the attention tasks of the step, and the number of partial results."""
        shared, groups = self.config.queries_per_group, self.config.num_kv_heads
        table = np.zeros((len(segments), at.SEGMENT), np.int64)
        tasks: list[tuple[int, ...]] = []
        row, parts = 0, 0
        self._pages = []
        for number, segment in enumerate(segments):
            state, count = segment.state, len(segment.ids)
            pages = np.array(state.page_addresses, np.int64)
            self._pages.append(pages)
            splits = -(-(state.length + count) // at.SPLIT_TOKENS)
            tiles = -(-count * shared // at.TILE_ROWS)
            each = 1 if tiles * groups >= 4 * threads else splits  # few tiles: threads share the keys of each
            adapted = segment.adapter.record.ctypes.data if segment.adapter is not None else 0
            table[number] = pages.ctypes.data, state.rings.ctypes.data, row, count, parts, each, adapted, state.memories.ctypes.data, 0
            first, end = row * shared, (row + count) * shared
            tasks += [
                (number, group, tile, min(at.TILE_ROWS, end - tile), part * splits // each, (part + 1) * splits // each, part)
                for tile in range(first, end, at.TILE_ROWS)
                for group in range(groups)
                for part in range(each)
            ]
            row, parts = row + count, parts + count * shared * groups * each
        return table, np.array(tasks, np.int64), parts


def _numbered(tokens: Array, vocab_size: int, vectors: Vectors, first: int) -> list[Array]:
    """Replace the ids beyond the vocabulary in tokens int64 [n] by −1 − `first` and downwards; return their vectors in order."""
    beyond = np.flatnonzero(tokens >= vocab_size)
    rows = [vectors[int(id_)] for id_ in tokens[beyond]]
    tokens[beyond] = -1 - first - np.arange(len(rows))
    return rows
