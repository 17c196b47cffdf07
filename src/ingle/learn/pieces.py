"""Pieces of a decoder's layer in float32 NumPy: each gives its outcome, and the function that takes the outcome's gradient back.

Only low-rank additions learn, so nothing keeps a gradient of a weight. Products with weights are float32 by NumPy, or bfloat16 by our own
kernel (kernels/bf16.py). Adam moves the additions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
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
    def shape(self) -> tuple[int, int]: ...

    def times(self, x: Array) -> Array:
        """x Wᵀ: [T, K] → [T, N]."""
        ...

    def back(self, g: Array) -> Array:
        """g W: [T, N] → [T, K]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Float32:
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


Angles = tuple[Array, Array]
Back = Callable[[Array], Array]
_TANH = 0.7978845608028654, 0.044715  # √(2/π), and the cubic's factor, in GELU's form with tanh


@dataclass(slots=True, eq=False)
class LowRank:
    """An addition to a linear that a lesson learns: scale · B A x."""

    a: Array  # [r, K]
    b: Array  # [N, r]
    scale: float
    to_a: Array  # the gradient of the loss at `a`, so far
    to_b: Array

    @classmethod
    def begun(cls, inputs: int, outputs: int, rank: int, scale: float, draw: np.random.Generator) -> "LowRank":
        """Return an addition of nothing: A as PyTorch begins linears, by Kaiming's uniform with a = √5, and B = 0."""
        bound = inputs**-0.5
        a, b = draw.uniform(-bound, bound, (rank, inputs)).astype(np.float32), np.zeros((outputs, rank), np.float32)
        return cls(a, b, scale, np.zeros_like(a), np.zeros_like(b))


@dataclass(slots=True, eq=False)
class Linear:
    """y = W x + bias + scale · B A x, W as it is kept."""

    weight: FrozenMatrix  # [N, K]
    bias: Array | None = None
    addition: LowRank | None = None

    def __call__(self, x: Array) -> tuple[Array, Back]:
        """Apply it: x [T, K] → [T, N]. Its `back` adds to the addition's gradients."""
        y, own = self.weight.times(x), self.addition
        if self.bias is not None:
            y += self.bias
        if own is None:
            return y, self.weight.back
        small = x @ own.a.T
        y += (small * np.float32(own.scale)) @ own.b.T

        def back(g: Array) -> Array:
            scaled = (g @ own.b) * np.float32(own.scale)
            own.to_b += (g.T @ small) * np.float32(own.scale)
            own.to_a += scaled.T @ x
            to_x = self.weight.back(g)
            to_x += scaled @ own.a
            return to_x

        return y, back


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """factor · x / rms(x) · weight, over the last dimension (arXiv 1910.07467)."""

    weight: Array
    eps: float
    factor: float = 1.0

    def __call__(self, x: Array) -> tuple[Array, Back]:
        """Apply it: [..., size] → same shape."""
        scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps))
        normed, weight = x * scale, self.weight * np.float32(self.factor)

        def back(g: Array) -> Array:
            inner = g * weight
            to_x: Array = (inner - normed * (inner * normed).mean(-1, keepdims=True)) * scale
            return to_x

        return normed * weight, back


@dataclass(frozen=True, slots=True, eq=False)
class LayerWeights:
    """A layer's weights by their names in Hugging Face's layer: linears and norms as in "self_attn.q_proj"."""

    config: ModelConfig
    index: int
    linears: dict[str, Linear]
    norms: dict[str, Norm]
    weights: dict[str, Array]  # all others, as in "self_attn.memory.age"


def gated(kind: str, gate: Array, up: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return activation(gate) · up, `silu` or `gelu` in its form with tanh, and what gives the gradients of both."""

    def back(g: Array) -> tuple[Array, Array]:
        active, slope = _activated(kind, gate)
        slope *= g
        slope *= up
        active *= g
        return slope, active

    return _activated(kind, gate)[0] * up, back


def _activated(kind: str, gate: Array) -> tuple[Array, Array]:
    """The activation and its slope; made twice, for both together are larger than all else that a layer keeps."""
    if kind == "silu":
        half = sigmoid(gate)
        active = gate * half
        slope = half - active * half  # half · (1 + gate · (1 − half))
        slope += active
        return active, slope
    root, cube = _TANH
    inner = np.tanh(np.float32(root) * (gate + np.float32(cube) * gate**3))
    slope = 0.5 * (1 + inner) + 0.5 * gate * (1 - inner * inner) * np.float32(root) * (1 + np.float32(3 * cube) * gate**2)
    return 0.5 * gate * (1 + inner), slope


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), which does not overflow."""
    found: Array = x * np.float32(0.5)
    np.tanh(found, out=found)
    found += 1
    found *= 0.5
    return found


def softplus(x: Array) -> Array:
    """log(1 + e^x), which does not overflow."""
    found: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return found


def unit(x: Array) -> tuple[Array, Back]:
    """Return x / ‖x‖ over the last dimension."""
    scale = 1 / np.sqrt((x * x).sum(-1, keepdims=True) + np.float32(1e-6))
    y = x * scale
    return y, lambda g: (g - y * (g * y).sum(-1, keepdims=True)) * scale


def turned(x: Array, cos: Array, sin: Array) -> tuple[Array, Back]:
    """Apply RoPE: x [T, …, D], cos and sin [T, D / 2]; the pair (i, i + D / 2) turns by its angle."""
    shape = (len(x), *(1,) * (x.ndim - 2), -1)
    c, s = cos.reshape(shape), sin.reshape(shape)

    def turn(x: Array, s: Array) -> Array:
        first, second = np.split(x, 2, -1)
        return np.concatenate([first * c - second * s, second * c + first * s], -1)

    return turn(x, s), lambda g: turn(g, -s)


# Adam for the additions of a lesson (arXiv 1412.6980), with the length of all gradients together bounded.


CLIP_NORM = 1.0
_BETA_1, _BETA_2, _EPS = 0.9, 0.99, 1e-8


class Adam:
    """Moves some additions, and keeps the means that it goes by."""

    def __init__(self, additions: Sequence[LowRank], rate: float) -> None:
        """`rate`: learning rate of the first step."""
        self._additions, self._rate, self._steps = tuple(additions), rate, 0
        self._means: list[tuple[Array, Array]] = [(np.zeros_like(v), np.zeros_like(v)) for one in additions for v in (one.a, one.b)]

    def step(self, factor: float) -> None:
        """Move all once, at `factor` of the rate, and set their gradients to zero."""
        self._steps += 1
        pairs = [pair for one in self._additions for pair in ((one.a, one.to_a), (one.b, one.to_b))]
        length = float(np.sqrt(sum(float(np.vdot(slope, slope)) for _, slope in pairs)))
        shrink = np.float32(min(1.0, CLIP_NORM / max(length, 1e-12)))
        near, far = 1 - _BETA_1**self._steps, 1 - _BETA_2**self._steps
        for (value, slope), (mean, square) in zip(pairs, self._means, strict=True):
            slope *= shrink
            mean += np.float32(1 - _BETA_1) * (slope - mean)
            square += np.float32(1 - _BETA_2) * (slope * slope - square)
            value -= np.float32(self._rate * factor / near) * mean / (np.sqrt(square / np.float32(far)) + np.float32(_EPS))
            slope.fill(0)
