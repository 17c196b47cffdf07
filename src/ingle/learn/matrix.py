"""Weights that don't learn, and products with them: float32 by NumPy, or bfloat16 by our own kernel (kernels/bf16_product.py)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.kernels import bf16_product as at
from ingle.kernels.jit import kernel

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
_LANES = 16


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


@dataclass(frozen=True, eq=False)
class BFloat16:
    """A matrix in bfloat16, as panels both ways; products round their rows to bfloat16 and sum in float32."""

    panels: Integers
    turned: Integers

    @classmethod
    def of(cls, values: Array) -> "BFloat16":
        """Round a matrix whose sides are multiples of 16."""
        return cls(_panels(values), _panels(values.T))

    @classmethod
    def gathered(cls, chunks: Iterable[Array], rows: int, columns: int) -> "BFloat16":
        """Round a matrix that comes some rows at a time."""
        panels = np.empty((rows // _LANES, columns // 2, _LANES), np.int32)
        turned = np.empty((columns // _LANES, rows // 2, _LANES), np.int32)
        left, at_row = np.empty((0, columns), np.float32), 0
        for chunk in chunks:
            left = np.concatenate([left, chunk])
            whole = len(left) // _LANES * _LANES
            panels[at_row // _LANES : (at_row + whole) // _LANES] = _panels(left[:whole])
            turned[:, at_row // 2 : (at_row + whole) // 2] = _panels(left[:whole].T)
            left, at_row = left[whole:], at_row + whole
        return cls(panels, turned)

    @cached_property
    def shape(self) -> tuple[int, int]:
        return len(self.panels) * _LANES, len(self.turned) * _LANES

    def times(self, x: Array) -> Array:
        return _product(x, self.panels)

    def back(self, g: Array) -> Array:
        return _product(g, self.turned)


def kept_matrix(values: Array, bf16: bool) -> FrozenMatrix:
    """Return a matrix in bfloat16 if that is asked for and its sides allow it, else in float32."""
    if bf16 and not values.shape[0] % _LANES and not values.shape[1] % _LANES:
        return BFloat16.of(values)
    return Float32(np.ascontiguousarray(values, np.float32))


def rounded(values: Array) -> npt.NDArray[np.uint16]:
    """Round to bfloat16, the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _panels(values: Array) -> Integers:
    """[N, K] → int32 [N / 16, K / 2, 16]."""
    rows, columns = values.shape
    pairs = rounded(values).reshape(rows // _LANES, _LANES, columns // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(pairs).view(np.int32).reshape(rows // _LANES, columns // 2, _LANES)


def _product(x: Array, panels: Integers) -> Array:
    x, count = np.ascontiguousarray(x, np.float32), len(panels)
    rows, steps = len(x), panels.shape[1]
    out, room = np.empty((rows, count * _LANES), np.float32), np.empty(x.size, np.uint16)
    record = np.array(
        [array.ctypes.data if isinstance(array, np.ndarray) else array for array in (x, rows, steps, count, panels, out, room)]
    )
    assert len(record) == len(at.FIELDS)
    kernel("bf16_product")(record.ctypes.data)
    return out
