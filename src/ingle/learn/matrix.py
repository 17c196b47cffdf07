"""Weights that don't learn, and products with them: float32 by NumPy, or bfloat16 by our own kernel (kernels/bf16.py)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.kernels import bf16 as at
from ingle.kernels.bf16 import CONFIG
from ingle.kernels.jit import kernel

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
_LANES = 16
_TILES = np.frombuffer(CONFIG, np.uint8)


class FrozenMatrix(Protocol):
    """W [N, K], as it is kept."""

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        ...

    def times(self, x: Array) -> Array:
        """x Wᵀ: [T, K] → [T, N]."""
        ...

    def back(self, g: Array) -> Array:
        """g W: [T, N] → [T, K]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Float32:
    """A matrix in float32."""

    values: Array

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.values.shape
        return rows, columns

    def times(self, x: Array) -> Array:
        y: Array = x @ self.values.T
        return y

    def back(self, g: Array) -> Array:
        x: Array = g @ self.values
        return x


@dataclass(frozen=True, slots=True, eq=False)
class BFloat16:
    """A matrix in bfloat16; products round their rows to bfloat16 and sum in float32."""

    panels: Integers  # [N / 16, K / 2, 16]

    @classmethod
    def gathered(cls, chunks: Iterable[Array], rows: int, columns: int) -> "BFloat16":
        """Round a matrix that comes some rows at a time, and whose sides are multiples of 16."""
        panels = _aligned(rows * columns // 2).reshape(rows // _LANES, columns // 2, _LANES)
        left, at_panel = np.empty((0, columns), np.float32), 0
        for chunk in chunks:
            left = np.concatenate([left, chunk]) if len(left) else chunk
            whole = len(left) // _LANES
            panels[at_panel : at_panel + whole] = _panels(left[: whole * _LANES])
            left, at_panel = left[whole * _LANES :], at_panel + whole
        return cls(panels)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.panels) * _LANES, self.panels.shape[1] * 2

    def times(self, x: Array) -> Array:
        return self._product("bf16_times", x, self.shape[0])

    def back(self, g: Array) -> Array:
        return self._product("bf16_back", g, self.shape[1])

    def _product(self, name: str, x: Array, columns: int) -> Array:
        x = np.ascontiguousarray(x, np.float32)
        rows, whole = len(x), -(-len(x) // _LANES) * _LANES
        out, rounded, turned = np.empty((whole, columns), np.float32), _aligned(whole * x.shape[1] // 2), _aligned(at.TURNED_BYTES // 4)
        parts = (x, rows, x.shape[1] // 2, columns // _LANES, self.panels, out, rounded, turned, _TILES)
        assert len(parts) == len(at.FIELDS)
        record = np.array([part.ctypes.data if isinstance(part, np.ndarray) else part for part in parts])
        kernel(name)(record.ctypes.data)
        return out[:rows]


def kept_matrix(values: Array, bf16: bool) -> FrozenMatrix:
    """Return a matrix in bfloat16 if that is asked for and its sides allow it, else in float32."""
    if bf16 and not values.shape[0] % _LANES and not values.shape[1] % _LANES:
        return BFloat16.gathered([values], *values.shape)
    return Float32(np.ascontiguousarray(values, np.float32))


def rounded(values: Array) -> npt.NDArray[np.uint16]:
    """Round to bfloat16, the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _aligned(count: int) -> Integers:
    """Room for so many int32, its first at the beginning of a line of the cache: vectors then lie in one line each."""
    whole = np.empty(count + _LANES, np.int32)
    return whole[-whole.ctypes.data % 64 // 4 :][:count]


def _panels(values: Array) -> Integers:
    """[N, K] → int32 [N / 16, K / 2, 16]."""
    rows, columns = values.shape
    pairs = rounded(values).reshape(rows // _LANES, _LANES, columns // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(pairs).view(np.int32).reshape(rows // _LANES, columns // 2, _LANES)
