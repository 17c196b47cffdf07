"""A transformer encoder and single linears on our kernels: packed weights, working memory, threads. kernels/encoder.py computes.

Names of weights are transformers': `layers.0.self_attn.q_proj.weight`, …
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError
from ingle.kernels import encoder_layout as to
from ingle.kernels import layout as at
from ingle.kernels import panels
from ingle.kernels.jit import kernel, needed

Array = npt.NDArray[Any]
Read = Callable[[str], npt.NDArray[np.float32]]  # gives a weight by its name
TowerFormat = Literal["fp32", "bf16", "int8"]  # `int8`: one scale per 32 columns, as in GGUF's Q8_0; input is rounded, too
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
_PACKERS = {"fp32": panels.pack_fp32, "bf16": lambda matrix: panels.pack_bf16(panels.to_bf16(matrix)), "int8": panels.pack_int8_grouped}
_LINEARS = {"fp32": "linear_fp32", "bf16": "linear_bf16", "int8": "linear_int8"}
_RUN = 512  # most keys of a run (kernels/packed_attention.py)
_SCORE_LINE = _RUN + 16
_ALIGNMENT = 64  # bytes: a cache line


@dataclass(frozen=True)
class EncoderShape:
    """The sizes of an encoder."""

    hidden: int
    middle: int  # columns inside the MLP
    layers: int
    heads: int
    eps: float
    norm_behind: bool = False  # whether norms stand behind attention and MLP, as in BERT, not before them

    def __post_init__(self) -> None:
        for name in ("hidden", "middle", "layers", "heads"):
            if not 1 <= getattr(self, name) <= 1 << 16:
                raise ConfigError(f"encoder.{name}", "must be between 1 and 65,536", getattr(self, name))
        if self.hidden % self.heads:
            raise ConfigError("encoder.hidden", f"must be a multiple of its {self.heads} heads", self.hidden)
        if not 0 <= self.eps < 1:
            raise ConfigError("encoder.eps", "must be between 0 and 1", self.eps)


def tower_kernels(format_: TowerFormat) -> tuple[list[str], frozenset[str]]:
    """Return the kernels that an eye in this format runs, and those that it never reaches."""
    unreached = frozenset(_LINEARS.values()) - {_LINEARS[format_]}
    return sorted({*needed("encoder_pass", unreached), *needed("encoder_project", unreached)}), unreached


def encoder_tensors(shape: EncoderShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by name."""
    hidden, middle = shape.hidden, shape.middle
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(shape.layers):
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"layers.{i}.{norm}.{part}": (hidden,) for part in ("weight", "bias")}
        for name in LINEARS:
            rows, columns = {"mlp.fc1": (middle, hidden), "mlp.fc2": (hidden, middle)}.get(name, (hidden, hidden))
            shapes |= {f"layers.{i}.{name}.weight": (rows, columns), f"layers.{i}.{name}.bias": (rows,)}
    return shapes


class PackedProduct:
    """A packed linear and its record."""

    def __init__(self, matrix: Array, bias: Array | None, format_: TowerFormat) -> None:
        packed = _PACKERS[format_](matrix)
        self.rows, self.padded = packed.rows, packed.padded
        self._format: TowerFormat = format_
        planes = [_line_up(plane) for plane in (packed.weights, packed.scales, packed.minima)]
        self._kept = [*planes, _vector(np.zeros(packed.rows) if bias is None else bias)]
        self.record = np.array([packed.kind, *packed.padded, *(array.ctypes.data for array in self._kept)], np.int64)

    def __call__(self, x: Array, threads: int, onto: Array | None = None) -> npt.NDArray[np.float32]:
        """Return x · weightᵀ + bias of float32 [T, columns], added to `onto` [T, rows] if given: float32 [T, rows]."""
        x = np.ascontiguousarray(x, np.float32)
        rows = len(x)
        out = _zeros((rows, self.padded[0]))
        if onto is not None:
            out[:, : self.rows] = onto
        size, counter = to.block_rows(rows, threads), np.zeros(1, np.int64)
        desks = _Desks(threads, size, self.padded[1], 0, 0)
        record = np.zeros(to.PROJECTION, np.int64)
        record[[to.ROWS, to.BLOCK_ROWS, to.SOURCE, to.SOURCE_BYTES, to.COLUMNS]] = rows, size, x.ctypes.data, 4 * x.shape[1], x.shape[1]
        record[[to.PROJECTED, to.ONTO, to.COUNTER]] = out.ctypes.data, onto is not None, counter.ctypes.data
        record[to.PROJECT_DESKS] = desks.record.ctypes.data
        run = kernel("encoder_project", tower_kernels(self._format)[1])
        together(threads, run, self.record.ctypes.data, record.ctypes.data)
        return out[:, : self.rows]


class Tower:
    """Packed layers, ready to run."""

    def __init__(self, shape: EncoderShape, read: Read, norm: tuple[Array, Array] | None, format_: TowerFormat) -> None:
        """norm: weight and bias of the norm after the last layer, unless norms stand behind."""
        self.shape, self._kernel = shape, kernel("encoder_pass", tower_kernels(format_)[1])
        self.hidden_padded, self._width = -(-shape.hidden // 32) * 32, -(-(shape.hidden // shape.heads) // 16) * 16
        self._layers = np.zeros((shape.layers, to.ENCODER_LAYER), np.int64)
        self._kept: list[Any] = []
        for i, record in enumerate(self._layers):
            norms = [f"layers.{i}.{name}.{part}" for name in ("layer_norm1", "layer_norm2") for part in ("weight", "bias")]
            record[:4] = [self._address(_vector(read(name))) for name in norms]
            products = [PackedProduct(read(f"layers.{i}.{name}.weight"), read(f"layers.{i}.{name}.bias"), format_) for name in LINEARS]
            record[4:] = np.concatenate([product.record for product in products])
            self._kept += products
        self._record = np.zeros(to.TOWER, np.int64)
        self._record[[to.LAYERS, to.HIDDEN, to.HIDDEN_PADDED, to.HEADS]] = shape.layers, shape.hidden, self.hidden_padded, shape.heads
        self._record[[to.DIM, to.WIDTH]] = shape.hidden // shape.heads, self._width
        self._record[to.EPS] = self._address(np.array([shape.eps], np.float32))
        self._record[to.NORM_BEHIND] = shape.norm_behind
        if norm is not None:
            self._record[[to.NORM, to.NORM_BIAS]] = [self._address(_vector(part)) for part in norm]
        self._record[to.LAYER] = self._layers.ctypes.data

    def __call__(self, x: Array, threads: int) -> npt.NDArray[np.float32]:
        """Return the last states of float32 [T, hidden], normalised."""
        rows, heads, hidden = len(x), self.shape.heads, self.hidden_padded
        stream, out = _zeros((rows, hidden)), _zeros((rows, hidden))
        stream[:, : self.shape.hidden] = x
        line = -(-rows // 16) * 16 + 16
        q, v, attended = (_zeros((heads, rows, self._width)) for _ in range(3))
        k, sums = _zeros((heads, self._width, line)), _zeros((heads, rows, 2))
        size = to.block_rows(rows, threads)
        desks = _Desks(threads, size, max(hidden, -(-self.shape.middle // 32) * 32), max(hidden, self.shape.middle + 32), _SCORE_LINE)
        seeing = _Seeing(rows, size, heads, self._width, line, (q, k, v, attended, sums))
        counters, meeting = np.zeros(2 * self.shape.layers, np.int64), np.zeros(8, np.int64)
        record = np.zeros(to.PASS, np.int64)
        record[[to.ROWS, to.BLOCK_ROWS, to.THREADS, to.LINE]] = rows, size, threads, line
        record[[to.STREAM, to.OUT, to.Q, to.K_TRANSPOSED, to.V]] = [array.ctypes.data for array in (stream, out, q, k, v)]
        record[[to.ATTENDED, to.CALL, to.TASKS]] = attended.ctypes.data, seeing.call.ctypes.data, seeing.tasks.ctypes.data
        record[[to.BARRIER, to.COUNTERS, to.DESKS]] = meeting.ctypes.data, counters.ctypes.data, desks.record.ctypes.data
        together(threads, self._kernel, self._record.ctypes.data, record.ctypes.data)
        return out[:, : self.shape.hidden]

    def _address(self, array: Array) -> int:
        self._kept.append(array)
        return int(array.ctypes.data)


class _Seeing:
    """Attention's records for one pass: each block of queries sees all keys, in runs."""

    def __init__(self, rows: int, size: int, heads: int, width: int, line: int, arrays: tuple[Array, ...]) -> None:
        starts, blocks = range(0, rows, _RUN), range(0, rows, size)
        self._beyond = np.zeros(16, np.float32)
        self._beyond[rows % 16 :] = -np.inf  # columns behind the last key
        self._runs = np.array([[start, min(_RUN, rows - start), 0, 0, 0] for start in starts], np.int64)
        if rows % 16:
            self._runs[-1, 2:] = self._beyond.ctypes.data, self._runs[-1, 1] // 16 * 16, 0
        self._blocks = np.array([[start, min(size, rows - start), 0, len(starts)] for start in blocks], np.int64)
        self.tasks = np.array([[block, head] for block in range(len(blocks)) for head in range(heads)], np.int64)
        q, k, v, attended, sums = (array.ctypes.data for array in arrays)
        # In the order of `kernels.packed_attention.FIELDS`, which can't be imported without Numba: a test compares them.
        numbers = [width, 1, rows, rows, line, self._blocks.ctypes.data, self._runs.ctypes.data, q, 0, v, k, 0, attended, sums, 0, 0, 0]
        self.call = np.array(numbers, np.int64)


class _Desks:
    """Each thread's working memory for a block of `size` rows: see `encoder_layout.DESK`."""

    def __init__(self, threads: int, size: int, columns: int, wide: int, score_line: int) -> None:
        self.record = np.zeros((threads, to.DESK), np.int64)
        sizes = {at.VALUES: (size * columns, np.float32), at.BYTES: (2 * size * columns, np.int8)}
        sizes |= {plane: (size * columns // 16, np.float32) for plane in (at.SCALE, at.TOTAL, at.OFFSET, at.HALVES)}
        sizes |= {to.WIDE: (size * wide, np.float32), to.SCORES: (size * score_line, np.float32)}
        self._kept = [[_zeros((count,), dtype) for count, dtype in sizes.values()] for _ in range(threads)]
        for record, arrays in zip(self.record, self._kept, strict=True):
            record[list(sizes)] = [array.ctypes.data for array in arrays]


def together(threads: int, work: Callable[..., None], *arguments: int) -> None:
    """Call work(*arguments, thread) on so many threads, the caller's included; they may wait for each other."""
    others = [threading.Thread(target=work, args=(*arguments, number)) for number in range(1, threads)]
    for other in others:
        other.start()
    work(*arguments, 0)
    for other in others:
        other.join()


def _zeros(shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Return zeros that begin at a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % _ALIGNMENT
    zeros: Array = raw[first : first + size].view(dtype).reshape(shape)
    return zeros


def _line_up(plane: Array) -> Array:
    """Return bytes that begin at a cache line."""
    lined_up = _zeros(plane.shape, plane.dtype)
    lined_up[...] = plane
    return lined_up


def _vector(values: Array) -> Array:
    return _line_up(np.pad(np.asarray(values, np.float32), (0, -len(values) % 32)))
