"""K-quants: what the gguf library decodes is what panels hold and what kernels multiply, to the last bit."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ShapeError
from ingle.kernels import formats, panels
from ingle.kernels.panels import unpack
from tests.examples import examples
from tests.kernels import naive
from tests.kernels.calls import run_linear
from tests.kernels.k_rows import UNITS, random_rows

every = pytest.mark.parametrize("kind", formats.KINDS)


def decoded(kind: str, raw: np.ndarray) -> np.ndarray:
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])


def sizes(kind: str, raw: np.ndarray, x: np.ndarray) -> float:
    """The most that sums of a product can reach: a code's part and a minimum's cancel where a weight is small."""
    of = formats.split_k(kind, raw)
    size = np.abs(x).astype(np.float64) @ np.abs(of.values(formats.KINDS[kind]).astype(np.float64)).T
    if of.least is not None and of.least_unit is not None:
        each = of.codes.shape[1] // of.least.shape[1]
        minima = np.abs(of.least_unit.astype(np.float64)).repeat(256 // each, 1) * of.least
        size += 2 * np.abs(x) @ minima.repeat(each, 1).T
    return float(size.max())


@every
@given(rows=st.integers(1, 70), blocks=st.integers(1, 3), chunk_bytes=st.sampled_from([1, 10_000, 1 << 22]), seed=st.integers(0, 10**6))
@examples(20)
def test_a_pack_is_exactly_what_the_library_decodes(kind: str, rows: int, blocks: int, chunk_bytes: int, seed: int) -> None:
    raw = random_rows(kind, rows, blocks, seed)
    np.testing.assert_array_equal(formats.split_k(kind, raw).values(formats.KINDS[kind]), decoded(kind, raw))
    packed = panels.pack_k(kind, raw, chunk_bytes)
    np.testing.assert_array_equal(unpack(packed), decoded(kind, raw))
    assert packed.nbytes * rows <= raw.nbytes * 1.04 * packed.padded[0], "no larger than in the file"


@every
@given(rows=st.integers(1, 40), blocks=st.integers(1, 2), tokens=st.integers(1, 29), seed=st.integers(0, 10**6), outlier=st.booleans())
@examples(20)
def test_kernel_is_its_naive_reference_in_integers(kind: str, rows: int, blocks: int, tokens: int, seed: int, outlier: bool) -> None:
    raw = random_rows(kind, rows, blocks, seed)
    x = np.random.default_rng(seed + 1).standard_normal((tokens, 256 * blocks)).astype(np.float32)
    if outlier:
        x[::2, 0] *= 1000
    seen, got = naive.rounded(x), run_linear(panels.pack_k(kind, raw), x)
    assert np.abs(got - naive.linear(seen, decoded(kind, raw))).max() < 2e-6 * (sizes(kind, raw, seen) + 1)


@every
def test_integer_sums_are_exact(kind: str) -> None:
    """Units are 1 and scales so small that every sum is a whole number below 2^24, also of the largest codes by the largest inputs."""
    raw = random_rows(kind, 32, 1, 0)
    raw[:16] = 255
    for place in UNITS[kind]:
        raw[:, place : place + 2] = np.ones((32, 1), np.float16).view(np.uint8)
    first, last = {"Q2_K": (0, 16), "Q3_K": (96, 108), "Q4_K": (4, 16), "Q5_K": (4, 16), "Q6_K": (192, 208), "IQ4_XS": (4, 8)}[kind]
    raw[:, first:last] = [1, 2, 3, 1] * ((last - first) // 4)
    if kind == "IQ4_XS":
        raw[:, 2:8] = [0xAA, 0xAA, 0x21, 0x13, 0x12, 0x31]  # upper halves of 2, so that scales are the lower ones
    x = np.random.default_rng(1).integers(-127, 128, (13, 256)).astype(np.float32)
    x[0], x[1] = 127, -127
    x[:, ::32] = 127  # each group's scale is then exactly 1
    np.testing.assert_array_equal(run_linear(panels.pack_k(kind, raw), x), x @ decoded(kind, raw).T)


@every
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    packed, x = panels.pack_k(kind, random_rows(kind, 48, 2, 1)), np.random.default_rng(2).standard_normal((30, 512)).astype(np.float32)
    x[::3, 40] = 50
    together = run_linear(packed, x)
    for count in (1, 2, 3, 7):
        np.testing.assert_array_equal(run_linear(packed, x[:count]), together[:count])


@every
def test_broken_rows_are_refused(kind: str) -> None:
    with pytest.raises(ShapeError, match=f"whole blocks of {formats.K_BYTES[kind]} bytes"):
        panels.pack_k(kind, random_rows(kind, 4, 1, 0)[:, :-1])
