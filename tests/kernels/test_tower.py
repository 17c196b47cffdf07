"""Encoders on our kernels against the naive reference, in every format, at sizes that fill no tile."""

import numpy as np
import pytest

from ingle.kernels import packed_attention
from ingle.kernels import panels as packing
from ingle.kernels.panels import unpack
from ingle.kernels.tower import EncoderShape, PackedProduct, Tower, TowerFormat, encoder_tensors
from tests.kernels import naive
from tests.kernels.naive import layer_norm

CLOSE = 2e-5
"""Largest difference allowed, beside numbers of about 1."""


def check_close(got: np.ndarray, expected: np.ndarray, format_: TowerFormat = "fp32") -> None:
    """int8: here and there a number between two steps is rounded to the other one, and attention spreads that to all rows."""
    difference = np.abs(got - expected)
    assert difference.max() < (0.05 if format_ == "int8" else CLOSE)
    assert np.median(difference) < (2e-4 if format_ == "int8" else CLOSE)


def random_weights(shape: EncoderShape, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        name: (("norm" in name and name.endswith("weight")) + 0.15 * draw.standard_normal(size)).astype(np.float32)
        for name, size in encoder_tensors(shape).items()
    }


def seen_by_kernels(matrix: np.ndarray, format_: TowerFormat) -> np.ndarray:
    """The numbers that are left of a matrix after packing."""
    match format_:
        case "fp32":
            return unpack(packing.pack_fp32(matrix))
        case "bf16":
            return unpack(packing.pack_bf16(packing.to_bf16(matrix)))
        case "int8":
            return unpack(packing.pack_int8_grouped(matrix))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("format_", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("rows", "hidden", "middle", "heads", "threads"), [(1, 32, 64, 2, 1), (37, 40, 72, 2, 2), (160, 48, 80, 3, 3)])
def test_an_encoder_equals_the_naive_one(
    format_: TowerFormat, rows: int, hidden: int, middle: int, heads: int, threads: int, behind: bool
) -> None:  # fmt: skip
    shape = EncoderShape(hidden, middle, 2, heads, 1e-6, behind)
    weights = random_weights(shape)
    draw = np.random.default_rng(1)
    norm = (1 + 0.1 * draw.standard_normal(hidden)).astype(np.float32), 0.1 * draw.standard_normal(hidden).astype(np.float32)
    x = draw.standard_normal((rows, hidden)).astype(np.float32)
    got = Tower(shape, weights.__getitem__, None if behind else norm, format_)(x, threads)
    rounded = {name: seen_by_kernels(w, format_) if w.ndim == 2 else w for name, w in weights.items()}
    expected = naive.encoder(x, rounded, 2, heads, 1e-6, format_ == "int8", behind)
    check_close(got, expected if behind else layer_norm(expected, *norm, 1e-6), format_)


def test_more_keys_than_a_run_holds_and_any_number_of_threads_give_the_same_bits() -> None:
    shape = EncoderShape(32, 32, 1, 2, 1e-6)
    weights, norm = random_weights(shape), (np.ones(32, np.float32), np.zeros(32, np.float32))
    x = np.random.default_rng(2).standard_normal((packed_attention.RUN + 45, 32)).astype(np.float32)
    encoder = Tower(shape, weights.__getitem__, norm, "fp32")
    got = encoder(x, 1)
    expected = layer_norm(naive.encoder(x, weights, 1, 2, 1e-6, False), *norm, 1e-6)
    check_close(got, expected)
    for threads in (2, 3, 5):
        assert np.array_equal(encoder(x, threads), got)


@pytest.mark.parametrize("format_", ["fp32", "bf16", "int8"])
def test_a_single_linear_equals_the_naive_one(format_: TowerFormat) -> None:
    draw = np.random.default_rng(3)
    x, matrix, bias, onto = (draw.standard_normal(size).astype(np.float32) for size in ((150, 75), (33, 75), (33,), (150, 33)))
    inputs = naive.rounded(x) if format_ == "int8" else x
    for given in (None, bias):
        for before in (None, onto):
            expected = naive.linear(inputs, seen_by_kernels(matrix, format_), given) + (0 if before is None else before)
            got = PackedProduct(matrix, given, format_)(x, 2, before)
            check_close(got, expected, format_)


def test_the_record_of_attention_is_in_the_kernels_order() -> None:
    assert packed_attention.FIELDS == (
        "WIDTH", "REPEATS", "QUERIES", "TOKENS", "TRANSPOSED_LINE", "BLOCKS", "RUNS", "Q", "K", "V", "K_TRANSPOSED", "V_TRANSPOSED", "OUT",
        "SUMS", "INNER", "TO_OUT", "TO_Q",
    )  # fmt: skip
