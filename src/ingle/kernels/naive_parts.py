"""Naive references of the parts that several kernels share, in plain NumPy."""

from typing import Any

import numpy as np

Array = Any  # NumPy arrays; the shapes are in the docstrings


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Return x / sqrt(mean(x²) + eps) · weight over the last axis (arXiv 1910.07467)."""
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Return (x − mean) / sqrt(variance + eps) · weight + bias over the last axis (arXiv 1607.06450)."""
    x = x.astype(np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def silu_product(gate: Array, up: Array) -> Array:
    """Return gate · sigmoid(gate) · up (SwiGLU, arXiv 2002.05202)."""
    return gate / (1 + np.exp(-gate)) * up


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^−x)."""
    return 1 / (1 + np.exp(-x))


def unit(x: Array) -> Array:
    """Return x [n] / sqrt(Σ x² + 1e-6)."""
    return x / np.sqrt((x**2).sum() + 1e-6)
