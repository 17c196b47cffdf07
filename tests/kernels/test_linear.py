"""Packed linears against their naive reference, for odd shapes, all kinds, and as exactly as float32 sums allow."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.core.errors import ShapeError
from ingle.kernels import layout as at
from ingle.kernels import panels
from ingle.kernels.formats import WEIGHTS
from ingle.kernels.panels import unpack
from tests.examples import examples
from tests.kernels import naive
from tests.kernels.calls import run_linear


def int8_groups(w: np.ndarray) -> panels.PackedLinear:
    groups = np.pad(w, ((0, 0), (0, -w.shape[1] % 32))).reshape(len(w), -1, 32)
    scale = (np.abs(groups).max(axis=2) / 127).astype(np.float16)
    q = np.rint(groups / np.where(scale > 0, scale, 1)[..., None]).clip(-127, 127).astype(np.int8)
    return panels.pack_int8_groups(q.reshape(len(w), -1)[:, : w.shape[1]], scale)


def uneven(w: np.ndarray) -> panels.PackedLinear:
    groups = np.pad(w, ((0, 0), (0, -w.shape[1] % 32))).reshape(len(w), -1, 32)
    scale = (np.abs(groups).max(axis=2) / max(WEIGHTS)).astype(np.float16)
    far = np.abs(groups[..., None] - scale.astype(np.float32)[..., None, None] * np.array(WEIGHTS))
    return panels.pack_uneven_values(far.argmin(axis=3).astype(np.uint8).reshape(len(w), -1)[:, : w.shape[1]], scale)


PACKERS = {
    "fp32": panels.pack_fp32,
    "bf16": lambda w: panels.pack_bf16((w.view(np.uint32) >> 16).astype(np.uint16)),
    "int8": panels.pack_int8,
    "int8_group": int8_groups,
    "int4": panels.pack_int4,
    "int5": panels.pack_int5,
    "iq4_nl": uneven,
    "int4_16": panels.pack_int4_16,
    "int3_16": panels.pack_int3_16,
}


def summed(packed: panels.PackedLinear) -> np.ndarray:
    """[N, K] What a weight puts into the sums: of one with a minimum both parts, which cancel where the weight is small."""
    weights = unpack(packed).astype(np.float64)
    if packed.kind not in (at.INT4, at.INT5, at.INT4_16, at.INT3_16):
        return np.abs(weights)
    minima = unpack(replace(packed, weights=np.zeros_like(packed.weights)))
    return np.abs(weights - minima) + np.abs(minima)


def matrix(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", PACKERS)
@example(rows=1, columns=10, tokens=5, with_bias=False, accumulate=False, seed=391, outlier=True)  # 895 × a weight near zero
@given(
    rows=st.integers(1, 70), columns=st.integers(1, 130), tokens=st.integers(1, 29), with_bias=st.booleans(),
    accumulate=st.booleans(), seed=st.integers(0, 10**6), outlier=st.booleans(),
)  # fmt: skip
@examples(40)
def test_kernel_is_its_naive_reference(
    kind: str, rows: int, columns: int, tokens: int, with_bias: bool, accumulate: bool, seed: int, outlier: bool
) -> None:
    packed = PACKERS[kind](matrix(seed, rows, columns))
    x = matrix(seed + 1, tokens, columns)
    if outlier:
        x[::2, 0] *= 1000
    bias = matrix(seed + 2, rows) if with_bias else None
    onto = matrix(seed + 3, tokens, rows) if accumulate else None
    seen = x if packed.kind < at.FLOAT_KINDS else naive.rounded(x)
    expected = naive.linear(seen, unpack(packed), bias) + (0 if onto is None else onto)
    got = run_linear(packed, x, bias, onto)
    # float32 sums of up to 130 products: each rounding is relative to the size of what is summed
    size = np.abs(seen) @ summed(packed).T + 1
    assert np.abs(got - expected).max() < 2e-6 * size.max()


@pytest.mark.parametrize("kind", ["int8", "int8_group", "int4", "int4_16", "int3_16"])
def test_integer_sums_are_exact(kind: str) -> None:
    """With all scales powers of two and no minimum nothing is rounded, so the result must be equal, at the extremes too."""
    low, high = {"int4": (0, 16), "int4_16": (0, 16), "int3_16": (0, 8)}.get(kind, (-127, 128))
    q = np.random.default_rng(0).integers(low, high, (32, 64))
    q[0] = q.max()
    step = 255 / 512 if kind.endswith("_16") else 0.5
    scale, blocks_16 = np.full((32, 2), 0.5, np.float16), (np.full(32, 1 / 512), np.full((32, 4), 255), np.zeros((32, 4)))
    packed = {
        "int8": lambda: panels.pack_int8_values(q.astype(np.int8), scale[:, 0]),
        "int8_group": lambda: panels.pack_int8_groups(q.astype(np.int8), scale),
        "int4": lambda: panels.pack_int4_values(q.astype(np.uint8), scale, np.zeros((32, 2))),
        "int5": lambda: panels.pack_int5_values(q.astype(np.uint8), scale, np.zeros((32, 2))),
        "int4_16": lambda: panels.pack_sixteens("Q4_16", *blocks_16, q),
        "int3_16": lambda: panels.pack_sixteens("Q3_16", *blocks_16, q),
    }[kind]()
    x = np.random.default_rng(1).integers(-127, 128, (13, 64)).astype(np.float32)
    x[0], x[1] = 127, -127  # with the largest codes: sums of 16 bits must hold it
    x[:, ::32] = 127  # each group's scale is then exactly 1
    np.testing.assert_array_equal(run_linear(packed, x), (x @ (q.T * step)).astype(np.float32))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    packed, x = PACKERS[kind](matrix(1, 48, 96)), matrix(2, 30, 96)
    x[::3, 40] = 50
    together = run_linear(packed, x)
    for count in (1, 2, 3, 7):
        np.testing.assert_array_equal(run_linear(packed, x[:count]), together[:count])


def test_an_outlier_leaves_its_neighbours_their_bits() -> None:
    x = matrix(2, 8, 64)
    without = np.abs(naive.rounded(x) - x).max()
    x[:, 5] = 500
    error = np.abs(naive.rounded(x) - x)
    assert error[:, :32].max() < 500 / 127 / 2 / 100, "two terms where the outlier is"
    assert error[:, 32:].max() <= without, "one term elsewhere"


@pytest.mark.parametrize("kind", PACKERS)
def test_packing_rounds_to_the_nearest(kind: str) -> None:
    w = matrix(3, 20, 70)
    error = np.abs(unpack(PACKERS[kind](w)) - w)
    span = np.ptp(np.pad(w, ((0, 0), (0, 26))).reshape(20, 3, 32), axis=2).max()
    most = {
        "fp32": 0,
        "bf16": 2.0**-7 * np.abs(w).max(),
        "int8": np.abs(w).max() / 127 / 2,
        "int8_group": 5 / 127 / 2,
        "int4": span / 15 / 2,
        "int5": span / 31 / 2,
        "iq4_nl": np.abs(w).max() / max(WEIGHTS) * np.diff(WEIGHTS).max() / 2,
        "int4_16": span / 15 * (1 / 2 + 1 / 8),  # scales and minima are rounded to a byte
        "int3_16": span / 7 * (1 / 2 + 1 / 8),
    }
    assert error.max() <= most[kind] * 1.02


def test_zero_and_constant_matrices_survive() -> None:
    for value in (0.0, 3.5):
        w = np.full((16, 32), value, np.float32)
        for packer in (panels.pack_int8, panels.pack_int4, panels.pack_int5, panels.pack_int4_16, panels.pack_int3_16, int8_groups):
            np.testing.assert_allclose(unpack(packer(w)), w, rtol=1e-3)


def test_scales_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match="scale"):
        panels.pack_int8_groups(np.zeros((16, 64), np.int8), np.zeros((16, 3)))
    with pytest.raises(ShapeError, match="two dimensions"):
        panels.pack_fp32(np.zeros((2, 2, 2)))
