"""Naive references of linears on integers, in plain NumPy: slow and obvious, and `ingle home doctor` compares the kernels with them.

Those of the whole decoder step lie with the tests (tests/kernels/naive.py).
"""

from typing import Any

import numpy as np

Array = Any  # NumPy arrays; the shapes are in the docstrings
OUTLIER = np.float32(6)


def quantise(x: Array) -> tuple[Array, Array]:
    """Quantise float32 [T, K], K a multiple of 32 → int8 [T, 2, K] and scales float32 [T, 2, K/32]: x ≈ Σ over both terms of scale · q.

    The second term is 0 in groups of 32 whose largest is at most OUTLIER · rms(row).
    """
    groups = np.asarray(x, np.float32).reshape(len(x), -1, 32)
    bound = OUTLIER * np.sqrt((np.asarray(x, np.float32) ** 2).mean(axis=1))
    outlier = np.abs(groups).max(axis=2) > bound[:, None]
    q, scales, rest = [], [], groups
    for _ in range(2):
        most = np.abs(rest).max(axis=2)
        scale = most / np.float32(127)
        inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
        q.append(np.rint(rest * inverse[..., None]).astype(np.int8))
        scales.append(scale)
        rest = (rest - q[-1] * scale[..., None].astype(np.float64)).astype(np.float32) * outlier[..., None]
    return np.stack(q, 1).reshape(len(x), 2, -1), np.stack(scales, 1)


def halves(q: Array) -> Array:
    """Sum int8 [..., K] → int32 [..., K/32], each a pair of 16-bit numbers: −16 times the sums of the first and the last 16 of 32."""
    sums = -16 * q.reshape(*q.shape[:-1], -1, 2, 16).astype(np.int32).sum(axis=-1)
    return np.ascontiguousarray(sums.astype("<i2")).view("<i4")[..., 0]


def rounded(x: Array) -> Array:
    """Return x with the rounding of the integer kernels: float64 [T, K]."""
    q, scale = quantise(np.pad(x, ((0, 0), (0, -x.shape[1] % 32))))
    values = (q.reshape(*scale.shape, 32).astype(np.float64) * scale[..., None]).sum(axis=1)
    return values.reshape(len(x), -1)[:, : x.shape[1]]


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x [T, K] · weight [N, K]ᵀ + bias, summed in float64."""
    y = x.astype(np.float64) @ weight.astype(np.float64).T
    return y if bias is None else y + bias
