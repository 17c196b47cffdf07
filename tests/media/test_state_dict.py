"""PyTorch's older files are read as PyTorch itself reads them, and nothing in them is ever run."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import CheckpointError
from ingle.media.state_dict import MAGIC, VERSION, read_state_dict
from tests.examples import examples

SIZES = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(collections.OrderedDict(tensors), path, _use_new_zipfile_serialization=False)
    return path


def file_of(path: Path, *pickles: bytes) -> Path:
    path.write_bytes(b"".join([pickle.dumps(MAGIC, 2), pickle.dumps(VERSION, 2), pickle.dumps(SIZES, 2), *pickles]))
    return path


def test_tensors_are_as_pytorch_reads_them(tmp_path: Path) -> None:
    whole = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        "a.weight": whole, "a.turned": whole.permute(2, 0, 1), "a.part": whole[1:, 2], "a.nothing": torch.zeros(0),
        "a.one": torch.tensor(7),
    }  # fmt: skip
    path = saved(tmp_path / "x.pth", tensors)
    got, expected = read_state_dict(path), torch.load(path, weights_only=True)
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(got[name], tensor.numpy())


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["INGLE_HOSTILE"],)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_HOSTILE", str(tmp_path / "made"))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = file_of(tmp_path / "x.pth", pickle.dumps({"a": Hostile()}, protocol), pickle.dumps([], 2))
        with pytest.raises(CheckpointError, match="must hold tensors alone; it asks for more"):
            read_state_dict(path)
        assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / "made").exists(), "the pickle does what it says, where it is run"


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cbuiltins\neval\nX\x05\x00\x00\x001 + 1\x85R.",  # a function that is none of the four
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",  # one of the four, with nothing to build
        b"\x80\x02ccollections\nOrderedDict\nX\x01\x00\x00\x00a\x85R.",  # a dict made of something
        b"\x80\x02}X\x01\x00\x00\x00a}b.",  # a dict's state put onto words
        b"\x80\x02}(X\x01\x00\x00\x00au.",  # half an item
        b"\x80\x02u.",  # items of nothing
        b"\x80\x02h\x07.",  # what was never kept
        b"\x80\x02Q.",  # a storage of nothing
        b"\x80\x02}}.",  # two values
        b"\x80\x02}",  # the end in the middle
    ],
)
def test_a_program_that_makes_no_sense_is_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(CheckpointError):
        read_state_dict(file_of(tmp_path / "x.pth", program, pickle.dumps([], 2)))


@examples(150)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), length=st.floats(0, 1))
def test_a_damaged_file_is_refused_or_holds_tensors(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int, length: float
) -> None:
    path = saved(tmp_path_factory.mktemp("damaged") / "x.pth", {"a": torch.ones(3, 2), "b": torch.ones(1)})
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] = byte
    path.write_bytes(data[: int(length * len(data)) + 1] if byte % 2 else data)
    try:
        tensors = read_state_dict(path)
    except CheckpointError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


@pytest.mark.parametrize("word", [b"\x8d", b"\x8e"])
def test_a_length_beyond_the_file_reserves_nothing(tmp_path: Path, word: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x04" + word + (1 << 62).to_bytes(8, "little") + b"abc")
    with pytest.raises(CheckpointError, match="no whole state dict"):
        read_state_dict(path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"a": torch.ones(300, 2)})
    data = path.read_bytes()
    small = data.replace(b"M\x58\x02N", b"M\x57\x02N")  # 599 numbers instead of 600
    assert small != data
    path.write_bytes(small)
    with pytest.raises(CheckpointError, match="within their storage"):
        read_state_dict(path)
