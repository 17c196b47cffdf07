"""Rows of a file in the kernels' panels, and back: the same bytes, whatever they are."""

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ShapeError
from ingle.kernels.formats import BLOCKS, K_BYTES
from ingle.kernels.panels import LOSSLESS, pack_stored, stored_rows, unpack
from tests.examples import examples

KINDS = (*BLOCKS, *K_BYTES)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.integers(1, 100), blocks=st.integers(1, 3), chunk_bytes=st.sampled_from([1, 20_000, 1 << 22]), seed=st.integers(0, 10**6))
@examples(20)
def test_any_bytes_come_back(kind: str, rows: int, blocks: int, chunk_bytes: int, seed: int) -> None:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * size), np.uint8)  # scales that are no numbers, too
    if kind in ("Q4_0", "Q5_0"):  # their minima are scales several times over
        raw.reshape(rows, blocks, size)[..., 1] &= 0xBF
    packed = pack_stored(kind, raw)
    back = list(stored_rows(kind, packed, chunk_bytes))
    assert all(len(part) <= max(32, chunk_bytes) for part in back)
    np.testing.assert_array_equal(np.concatenate(back), raw)


@pytest.mark.parametrize(("kind", "most"), [("Q4_0", 8188), ("Q5_0", 4094)])
def test_a_scale_too_large_for_its_minimum_is_refused(kind: str, most: int) -> None:
    raw = np.zeros((32, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]), np.uint8)
    for scale, fits in ((most, True), (most + 8, False)):
        raw[5, :2] = np.array([-scale], np.float16).view(np.uint8)
        if fits:
            np.testing.assert_array_equal(unpack(pack_stored(kind, raw)), gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]))
        else:
            with pytest.raises(ShapeError, match=f"must be at most {most:,} in {kind}"):
                pack_stored(kind, raw)


@pytest.mark.parametrize("kind", ["Q4_16", "F16", "IQ2_XXS"])
def test_kinds_that_no_file_has_or_that_lose_are_refused(kind: str) -> None:
    packed = pack_stored("Q8_0", np.zeros((3, 34), np.uint8))
    with pytest.raises(ShapeError, match="kind"):
        list(stored_rows(kind, packed))
    if kind not in LOSSLESS:
        with pytest.raises(ShapeError, match="must be one of"):
            pack_stored(kind, np.zeros((3, 34), np.uint8))
