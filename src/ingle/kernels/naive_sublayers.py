"""Naive references of what may stand in the place of attention or of the plain MLP (core/sublayers.py), in plain NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ingle.core.sublayers import DeltaRule, Experts, ShortConvolution
from ingle.kernels.naive_parts import rms_norm, sigmoid, silu_product, unit

Array = Any  # NumPy arrays; the shapes are in the docstrings
Project = Callable[[Array, str], Array]
"""Multiplies rows [T, K] by the linear of that name."""


def convolved(x: Array, taps: Array, bias: Array | float = 0.0) -> Array:
    """Return Σ over j of taps[c, 0, j] · x[t − length + 1 + j, c] + bias: x [T, C], taps [C, 1, length] → [T, C]. Before the first
    token lie zeros."""
    length = taps.shape[2]
    whole = np.concatenate([np.zeros((length - 1, x.shape[1])), x])
    return np.stack([(whole[t : t + length] * taps[:, 0].T).sum(axis=0) for t in range(len(x))]) + bias


def convolution(x: Array, own: ShortConvolution, project: Project, weights: Callable[[str], Array]) -> Array:
    """Return C · conv(B · x) before the output linear (arXiv 2511.23404): x [T, hidden] → same shape."""
    into, out, values = np.split(project(x, "in_proj"), 3, axis=1)
    return out * convolved(into * values, weights("conv.weight"), weights("conv.bias") if own.bias else 0.0)


def delta(x: Array, own: DeltaRule, eps: float, project: Project, weights: Callable[[str], Array]) -> Array:
    """Return the value heads' outputs before the output linear (arXiv 2412.06464 eq. 10): x [T, hidden] → [T, value heads · dim]."""
    T, dim, each = len(x), own.dim, own.value_heads // own.key_heads
    qkv = convolved(project(x, "in_proj_qkv"), weights("conv1d.weight"))
    q, k, v = np.split((qkv * sigmoid(qkv)).reshape(T, -1, dim), [own.key_heads, 2 * own.key_heads], axis=1)
    keep = np.exp(-np.exp(weights("A_log").astype(np.float64)) * np.logaddexp(0, project(x, "in_proj_a") + weights("dt_bias")))
    write, gate = sigmoid(project(x, "in_proj_b")), project(x, "in_proj_z").reshape(T, -1, dim)
    y = np.zeros((T, own.value_heads, dim))
    for head in range(own.value_heads):
        s, group = np.zeros((dim, dim)), head % own.key_heads if own.tiled else head // each
        for t in range(T):
            key, value = unit(k[t, group]), v[t, head]
            s = keep[t, head] * (s - write[t, head] * np.outer(s @ key, key)) + write[t, head] * np.outer(value, key)
            y[t, head] = s @ unit(q[t, group]) / np.sqrt(dim)
    return silu_product(gate, rms_norm(y, weights("norm.weight"), eps)).reshape(T, -1)


def mixture(x: Array, own: Experts, project: Project, product: Callable[[Array, Array], Array]) -> Array:
    """Return the sum of each row's experts times their shares (arXiv 1701.06538): x [T, hidden] → same shape."""
    scores, y = project(x, "gate"), np.zeros(x.shape)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = shares / shares.sum(axis=1, keepdims=True)
    for t in range(len(x)):
        chosen = np.argsort(-shares[t], kind="stable")[: own.chosen]
        factor = shares[t, chosen].sum() if own.normed else 1.0
        for expert in chosen:
            row, name = x[t : t + 1], f"experts.{expert}"
            inner = product(project(row, f"{name}.gate_proj"), project(row, f"{name}.up_proj"))
            y[t] += (project(inner, f"{name}.down_proj") * shares[t, expert] / factor)[0]
    return y
