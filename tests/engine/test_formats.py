"""Every format of weights in GGUF: packs hold exactly what the gguf library decodes, and damaged files are refused."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.engine import packs
from ingle.engine.backend import Segment
from ingle.kernels.formats import K_BYTES
from ingle.model.checkpoint import check_finite, open_checkpoint
from tests.engine.test_cpu import naive_logits
from tests.engine.tiny import backend_of, tiny_config, tokens, unpacked
from tests.kernels.k_rows import UNITS as K_UNITS
from tests.kernels.k_rows import random_rows
from tests.model.tiny_models import random_weights, write_gguf

LOSSLESS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
UNITS = {"Q5_0": (0,), "Q5_1": (0, 2), "Q4_0": (0,), "Q4_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,)}
"""Where in a block of 32 its float16 lie."""
CONFIG = tiny_config(hidden=256, mlp=512, heads=4, dim=64)
every = pytest.mark.parametrize("kind", LOSSLESS)


def random_raw(kind: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """[rows, bytes] of random codes and sane scales, as they lie in a file."""
    if kind in K_BYTES:
        return random_rows(kind, rows, columns // 256, seed, 0.001)
    draw, size = np.random.default_rng(seed), gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    raw = draw.integers(0, 256, (rows, columns // 32, size), np.uint8)
    for place in UNITS[kind]:
        raw[..., place : place + 2] = (0.01 * draw.standard_normal((rows, columns // 32, 1))).astype(np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


def quantised_file(
    path: Path, kind: str, broken: str = "", config: ModelConfig = CONFIG, extra: Callable[[gguf.GGUFWriter], None] = lambda _: None
) -> Path:
    """A GGUF file with all matrices in blocks of this kind; `broken`: the tensor that gets a scale of NaN; `extra`: adds keys."""
    weights, member = random_weights(config), gguf.GGMLQuantizationType[kind]

    class Random(gguf.GGUFWriter):
        def add_tensor(self, name: str, tensor: np.ndarray, **others: object) -> None:  # type: ignore[override]
            if tensor.ndim == 2:
                raw = random_raw(kind, *weights_of[name], len(name))
                if name == broken:
                    place = (UNITS | K_UNITS)[kind][0]
                    raw[0, place : place + 2] = np.array([np.nan], np.float16).view(np.uint8)
                super().add_tensor(name, raw, raw_dtype=member)
            else:
                super().add_tensor(name, tensor)

    weights_of = {}
    with pytest.MonkeyPatch.context() as patch:
        from tests.model import tiny_models

        for name, weight in weights.items():
            if weight.ndim == 2:
                weights_of[tiny_models.gguf_name(name)] = weight.shape
        patch.setattr(tiny_models.gguf, "GGUFWriter", Random)
        return write_gguf(path, config, weights, extra=extra)


@every
def test_a_file_is_served_as_exactly_what_the_library_decodes(tmp_path: Path, kind: str) -> None:
    checkpoint = open_checkpoint(quantised_file(tmp_path / "m.gguf", kind))
    check_finite(checkpoint)
    backend = backend_of(tmp_path, checkpoint, "auto")
    info = packs.read_pack(tmp_path / "auto")
    assert info is not None
    held = dict(unpacked(tmp_path / "auto", info))
    for name in checkpoint.names:
        tensor = checkpoint.tensor(name)
        expected = tensor.to_float32()
        if len(tensor.shape) == 2:
            assert tensor.kind == kind
            np.testing.assert_array_equal(expected, gguf.quants.dequantize(tensor.raw, gguf.GGMLQuantizationType[kind]))
        np.testing.assert_array_equal(held[name], expected, err_msg=name)
    ids = tokens(CONFIG, 30)
    [got] = backend.forward([Segment(backend.new_state(), ids, "all")])
    expected = naive_logits(CONFIG, tmp_path / "auto", ids, "float32")
    difference = np.abs(got - expected).max(axis=1) / np.abs(expected).max()
    assert difference.min() < 1e-5
    assert difference.max() < 0.05, "where rounding to int8 flips"


@every
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = quantised_file(tmp_path / "m.gguf", kind)
    whole = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for share in (0.01, 0.2, 0.5, 0.9, 0.999):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError):
            open_checkpoint(cut)
    cut.write_bytes(whole[:-40])
    with pytest.raises(CheckpointError, match="ends at byte"):
        open_checkpoint(cut)


@every
def test_a_scale_that_is_no_number_is_found(tmp_path: Path, kind: str) -> None:
    checkpoint = open_checkpoint(quantised_file(tmp_path / "m.gguf", kind, "blk.1.ffn_up.weight"))
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight must hold finite"):
        check_finite(checkpoint)


@every
def test_rows_that_fill_no_blocks_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    raw = bytearray(quantised_file(path, kind).read_bytes())
    shape = np.array([256, 512], "<u8").tobytes()  # columns and rows of an up projection
    place = raw.index(shape)
    raw[place : place + 8] = np.array([250], "<u8").tobytes()
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="must have columns in blocks"):
        open_checkpoint(path)
