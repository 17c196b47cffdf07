"""Pieces of a decoder's layer in float32 NumPy: each gives its outcome, and the function that takes the outcome's gradient back.

Only low-rank additions learn, so nothing keeps a gradient of a weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.learn.matrix import FrozenMatrix

Array = npt.NDArray[np.float32]
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
