"""The buffers of a step, as large as the largest step so far, and the record that tells the kernels their addresses."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import Experts, ModelConfig
from ingle.core.state import StateLayout
from ingle.kernels import layout as at
from ingle.kernels import sublayer_layout as sub

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
