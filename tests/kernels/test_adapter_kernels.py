"""The two kernels of adapters against NumPy, one linear and one row at a time."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.core.spec import ModelConfig
from ingle.engine.adapter import Addition, pack_adapter
from ingle.kernels import layout as at
from ingle.kernels.jit import kernel
from tests.engine.tiny import tiny_config
from tests.examples import examples
from tests.kernels import naive
from tests.kernels.naive import unpack_adapter

NAME = "model.layers.0.mlp.down_proj"  # K = intermediate_size, N = hidden_size


def run(config: ModelConfig, addition: Addition, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what is between A and B, y with the addition) of each row of x, as the kernels compute it."""
    adapter = pack_adapter(config, {NAME: addition}, "test")
    place = adapter.record.ctypes.data + 8 * at.ADAPTER * 6
    rank, columns, rows = adapter.record[0, 6, :3].tolist()
    padded = np.zeros((len(x), columns), np.float32)
    padded[:, : x.shape[1]] = x
    q, scale = naive.quantise(padded)
    counts = q.reshape(len(x), 2, -1, 32).astype(np.int32).sum(axis=3)
    planes = [padded, q, scale, (scale * counts).astype(np.float32), (-128 * counts).astype(np.int32), naive.halves(q)]
    planes = [np.ascontiguousarray(plane) for plane in planes]
    activations = np.array([plane.ctypes.data for plane in planes], np.int64)
    out = np.zeros((len(x), rows), np.float32)
    out[:, : y.shape[1]] = y
    inner = np.zeros((len(x), at.inner_floats(rank)), np.float32)
    for row in range(len(x)):
        kernel("adapter_in")(place, activations.ctypes.data, row, inner[row].ctypes.data)
        kernel("adapter_out")(place, inner[row].ctypes.data, out[row].ctypes.data)
    return inner[:, : len(addition.a)], out[:, : y.shape[1]]


@given(
    hidden=st.integers(1, 70), mlp=st.integers(1, 130), rank=st.integers(1, 40), seed=st.integers(0, 10**6), bent=st.booleans(),
    outlier=st.booleans(),
)  # fmt: skip
@example(hidden=6, mlp=51, rank=38, seed=124, bent=True, outlier=False)  # a code of A is nearly between two
@examples(60)
def test_kernels_are_their_naive_reference(hidden: int, mlp: int, rank: int, seed: int, bent: bool, outlier: bool) -> None:
    config, draw = tiny_config(hidden=hidden, mlp=mlp), np.random.default_rng(seed)
    bias = draw.standard_normal(rank) if bent else None
    addition = Addition(draw.standard_normal((rank, mlp)), draw.standard_normal((hidden, rank)), bias)
    x, y = draw.standard_normal((5, mlp)).astype(np.float32), draw.standard_normal((5, hidden)).astype(np.float32)
    if outlier:
        x[::2, 0] *= 300
    inner, out = run(config, addition, x, y)
    a, b, _ = unpack_adapter(config, {NAME: addition})[NAME]
    seen = naive.rounded(x)
    size = (np.abs(seen) @ np.abs(a).T).max() + 3
    expected = naive.linear(seen, a, bias)
    expected = np.maximum(expected, 0) if bent else expected
    assert np.abs(inner - expected).max() < 3e-6 * size
    # Between A and B 15 bits are kept, of the largest number there.
    rounding = np.abs(inner).max(axis=1, keepdims=True) / 127 / 254 / 2 * 1.01
    exact = y + inner.astype(np.float64) @ b.T
    assert (np.abs(out - exact) <= rounding * np.abs(b).sum(axis=1) + 3e-6 * (np.abs(inner).max() * np.abs(b).sum(axis=1).max() + 5)).all()


def test_nothing_adds_nothing() -> None:
    config, x = tiny_config(), np.random.default_rng(0).standard_normal((3, 80)).astype(np.float32)
    y = np.random.default_rng(1).standard_normal((3, 48)).astype(np.float32)
    for a, b, bias in ((0.0, 1.0, None), (1.0, 0.0, None), (0.0, 1.0, -1.0)):
        addition = Addition(np.full((5, 80), a), np.full((48, 5), b), None if bias is None else np.full(5, bias))
        np.testing.assert_array_equal(run(config, addition, x, y)[1], y)
    np.testing.assert_array_equal(run(config, Addition(np.ones((2, 80)), np.ones((48, 2))), 0 * x, y)[1], y)


@pytest.mark.parametrize("rank", [16, 17, 48])
def test_whole_numbers_come_out_exactly(rank: int) -> None:
    """With scales that are powers of two nothing is rounded, at the extremes too."""
    config, draw = tiny_config(hidden=32, mlp=64), np.random.default_rng(rank)
    a, b = draw.integers(-127, 128, (rank, 64)).astype(np.float64), draw.integers(-127, 128, (32, rank)).astype(np.float64)
    a[:, 0], b[:, 0] = 127, 127
    x = np.zeros((4, 64), np.float32)
    x[:, 0] = 127
    x[1:, 40] = [-127, 3, 127]
    expected = x.astype(np.float64) @ a.T
    inner, out = run(config, Addition(a, b), x, np.zeros((4, 32), np.float32))
    np.testing.assert_array_equal(inner, expected)
    np.testing.assert_allclose(out, expected @ b.T, rtol=0, atol=np.abs(expected).max() / 127 / 254 * np.abs(b).sum(axis=1).max())
