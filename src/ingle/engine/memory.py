"""The buffers of a step, as large as the largest step so far, and the record that tells the kernels their addresses."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.core.state_layout import StateLayout
from ingle.kernels import layout as at

Array = npt.NDArray[Any]


def up32(n: int) -> int:
    """Round up to a multiple of 32."""
    return -(-n // 32) * 32


def remembering(layout: StateLayout) -> list[tuple[int, int]]:
    """Return the different (window, sinks) of layers with recurrent memories, ascending."""
    return sorted({(spec.window, spec.sinks) for spec in layout.layers if spec.remembering(layout.kv_groups)})


class StepMemory:
    """float32 and int64 buffers for up to `rows` rows, `outputs` rows of logits, `parts` partial attention results, and adapters of rank
    `inner`, on up to `threads` threads. Each step sets its own thread count and barrier."""

    def __init__(self, config: ModelConfig, layout: StateLayout, threads: int, rows: int, outputs: int, parts: int, inner: int) -> None:
        self.rows, self.outputs, self.parts, self.inner = rows, outputs, parts, inner
        self.record = np.zeros(at.STEP, np.int64)
        self._kept: list[Array] = []
        width, shared = layout.width, config.queries_per_group
        hidden, mlp = up32(config.hidden_size), up32(config.intermediate_size)
        queries, keys = up32(config.num_heads * config.head_dim), up32(config.num_kv_heads * config.head_dim)
        part = at.part_floats(width)
        memories = int((layout.memory_places >= 0).sum(axis=1).max())
        self.windows = remembering(layout)
        floats = {
            at.STREAM: rows * hidden, at.QUERIES: rows * queries, at.KEYS: rows * keys, at.VALUES_NEW: rows * keys,
            at.ROTATED: config.num_kv_heads * (rows * shared + at.TILE_ROWS) * width, at.PARTS: parts * part,
            at.GATED: rows * mlp, at.LIFTED: rows * mlp, at.SCRATCH: threads * at.scratch_floats(width),
            at.OUTCOME: rows * hidden if config.ways.apart else 0,
            at.INNER: 3 * rows * at.inner_floats(inner), at.FEATURES: rows * memories * at.feature_floats(width, shared),
        }  # fmt: skip
        for field, count in floats.items():
            self.record[field] = self._new(count, np.float32).ctypes.data
        for field, count, columns in (
            (at.NORMED, rows, hidden),
            (at.ATTENDED, rows, queries),
            (at.MIXED, rows, mlp),
            (at.FINAL, outputs, hidden),
        ):
            self.record[field + at.VALUES] = self._new(count * columns, np.float32).ctypes.data
            self.record[field + at.BYTES] = self._new(2 * count * columns, np.int8).ctypes.data
            for plane, dtype in ((at.SCALE, np.float32), (at.TOTAL, np.float32), (at.OFFSET, np.int32), (at.HALVES, np.int32)):
                self.record[field + plane] = self._new(2 * count * columns // 32, dtype).ctypes.data
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
            (at.BACK_COSINE, self.back_cosine), (at.BACK_SINE, self.back_sine), (at.HELD, self.held),
        ):  # fmt: skip
            self.record[field] = array.ctypes.data
        self.record[at.INNER_WIDTH] = at.inner_floats(inner)

    def fits(self, rows: int, outputs: int, parts: int, inner: int) -> bool:
        """Return whether a step of this size needs no new buffers."""
        return rows <= self.rows and outputs <= self.outputs and parts <= self.parts and inner <= self.inner

    def _new(self, count: int, dtype: Any) -> Array:
        array = np.zeros(max(count, 1), dtype)
        self._kept.append(array)
        return array
