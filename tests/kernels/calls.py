"""Calls kernels with NumPy arrays: the records that the engine would build, for one linear at a time."""

from typing import Any

import numpy as np

from ingle.kernels import layout as at
from ingle.kernels.jit import kernel
from ingle.kernels.panels import PackedLinear
from tests.kernels import naive

ENTRY = {kind: name for name, kinds in at.LINEARS.items() for kind in kinds}


def run_linear(packed: PackedLinear, x: np.ndarray, bias: np.ndarray | None = None, onto: np.ndarray | None = None) -> np.ndarray:
    """x [T, K] through the kernel of a packed matrix → float32 [T, N], added to `onto` if given."""
    N, K = packed.padded
    padded = np.zeros((len(x), K), np.float32)
    padded[:, : x.shape[1]] = x
    q, scale = naive.quantise(padded)
    counts = q.reshape(len(x), 2, -1, 32).astype(np.int32).sum(axis=3)
    planes: list[Any] = [padded, q, scale, (scale * counts).astype(np.float32), (-128 * counts).astype(np.int32), naive.halves(q)]
    planes = [np.ascontiguousarray(plane) for plane in planes]
    activations = np.array([*(plane.ctypes.data for plane in planes)], np.int64)
    long_bias = np.zeros(N, np.float32)
    long_bias[: 0 if bias is None else len(bias)] = 0 if bias is None else bias
    record = np.array(
        [packed.kind, N, K, *(plane.ctypes.data for plane in (packed.weights, packed.scales, packed.minima)), long_bias.ctypes.data],
        np.int64,
    )
    out = np.zeros((len(x), N), np.float32)
    if onto is not None:
        out[:, : packed.rows] = onto
    call = kernel(ENTRY[packed.kind])
    for index in range(N // 16):
        call(record.ctypes.data, index, activations.ctypes.data, len(x), out.ctypes.data + 64 * index, 4 * N, int(onto is not None))
    assert not out[:, packed.rows :].any(), "padding rows must stay zero: the next linear reads them"
    return out[:, : packed.rows]
