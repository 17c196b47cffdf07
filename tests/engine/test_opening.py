"""Opening a kept model: packed once, checked at every start, told apart by format, and damage is said."""

from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import CheckpointError, DeltaError
from ingle.core.message import Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.opening import Source, kept_source, list_packs, open_model
from ingle.engine.packing import unpacked
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.export import save_hf
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import random_checkpoint, tiny_config


@pytest.fixture
def source(tmp_path: Path) -> Source:
    config = tiny_config(vocab=260, hidden=64, mlp=96, dim=16)
    checkpoint = random_checkpoint(config)
    folder = tmp_path / "base"
    save_hf(folder, config, {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}, byte_tokenizer())
    return Source("tiny", folder, "digest", tmp_path / "packs")


def words(source: Source, format_: str) -> str:
    request = Request(prompt="hello", max_tokens=12, sampling=Sampling(logit_bias=((256, -100.0),)))
    return "".join(chunk.text for chunk in answer(open_model(source, format_, 1), request))


def test_a_pack_is_made_once_and_used_again(source: Source) -> None:
    seen: list[str] = []
    first = open_model(source, "int8", 1, progress=lambda what, _done, _all: seen.append(what))
    assert "packing weights" in seen
    seen.clear()
    again = open_model(source, "int8", 1, progress=lambda what, _done, _all: seen.append(what))
    assert "packing weights" not in seen
    assert first.backend.digest == again.backend.digest
    assert words(source, "int8") == words(source, "int8")


def test_formats_are_different_models(source: Source) -> None:
    digests = {format_: open_model(source, format_, 1).backend.digest for format_ in ("auto", "int4", "bf16", "fp32")}
    assert len(set(digests.values())) == 4
    assert {info.format for info in list_packs(source)} == set(digests)
    exact = dict(unpacked(source.packs / "fp32", next(info for info in list_packs(source) if info.format == "fp32")))
    checkpoint = random_checkpoint(tiny_config(vocab=260, hidden=64, mlp=96, dim=16))
    for name, values in exact.items():
        np.testing.assert_array_equal(values, checkpoint.tensor(name).to_float32())


def test_a_flipped_bit_in_a_pack_is_found_at_the_next_start(source: Source) -> None:
    open_model(source, "int4", 1)
    path = source.packs / "int4" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Delete the folder"):
        open_model(source, "int4", 1)


def test_a_pack_that_was_never_finished_is_made_again(source: Source) -> None:
    open_model(source, "int4", 1)
    expected = words(source, "int4")
    (source.packs / "int4" / "pack.json").unlink()
    (source.packs / "int4" / "weights.bin").write_bytes(b"half")
    assert words(source, "int4") == expected


def test_a_model_with_deltas_is_refused_until_they_can_be_applied(tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="deltas"):
        kept_source(Home(tmp_path), Kept("m", "base", ("delta",), "2026-01-01"))
