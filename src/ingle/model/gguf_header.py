"""The header of a GGUF file, read without the weights and without trusting any length in it.

The gguf library's own reader makes a NumPy object for each of 100,000 token strings (2.4 s for SmolLM2) and lets struct and NumPy
errors out on damaged files; this one takes 0.1 s and raises CheckpointError. Sizes of quantised blocks are the library's.
Source: ggml's docs/gguf.md, versions 2 and 3, little-endian.
"""

import itertools
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_CURE = "The file is damaged or incomplete; pull it again."


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor's place. `shape` is (rows, columns) or (n,): GGUF writes it the other way round."""

    shape: tuple[int, ...]
    kind: str
    """GGML's name for its type, e.g. `Q4_1`."""
    data: npt.NDArray[np.uint8]
    """Its bytes, memory-mapped: [rows, bytes per row], or [bytes]."""
    begin: int
    """Its first byte in the file."""


@dataclass(frozen=True, slots=True)
class GGUF:
    """A GGUF file's metadata (numbers, strings, lists of strings, arrays of numbers) and tensors, by GGUF's names."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]


class Stored(Protocol):
    """The bytes of a GGUF file, wherever they lie."""

    path: Path
    """For messages."""
    head: mmap.mmap
    """The file from its first byte, at least as far as its header goes."""
    nbytes: int
    """Of the whole file."""

    def span(self, begin: int, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file, which are within it."""


class Mapped:
    """A file as it lies on disk."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if it can't be read."""
        self.path = path
        try:
            with path.open("rb") as file:
                self.head = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
            raise CheckpointError(str(path), "must be a readable GGUF file", error, _CURE) from error
        self.nbytes = len(self.head)

    def span(self, begin: int, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file."""
        return np.frombuffer(self.head, np.uint8, size, begin)


def read_gguf(stored: Stored) -> GGUF:
    """Read the header and map the tensors. Raises CheckpointError for whatever is wrong; the file may be hostile."""
    path, buffer = stored.path, stored.head
    cursor = _Cursor(path, buffer)
    if bytes(buffer[:4]) != b"GGUF":
        cure = "Name a GGUF file, or a folder with config.json and safetensors."
        raise CheckpointError(str(path), "must begin with GGUF's magic bytes", bytes(buffer[:4]), cure)
    cursor.at = 4
    version = cursor.scalar("<I", "version")
    if version not in (2, 3):
        raise CheckpointError(f"{path}: version", "must be 2 or 3, little-endian", version, "Convert the file with a current llama.cpp.")
    tensor_count, key_count = cursor.count("tensor count", 24), cursor.count("key count", 13)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string("key")
        if key in metadata:
            raise CheckpointError(f"{path}: {key}", "must not be there twice", "", _CURE)
        metadata[key] = cursor.value(cursor.scalar("<I", key), key)
    infos = [_tensor_info(cursor) for _ in range(tensor_count)]
    return GGUF(path, metadata, _map_tensors(stored, cursor.at, infos, metadata.get("general.alignment", 32)))


class _Cursor:
    """A position in the header. Each method reads one thing and moves on; none reads past the end of the file."""

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path, self.buffer, self.at = path, buffer, 0

    def need(self, size: int, what: str) -> None:
        if size > len(self.buffer) - self.at:
            rule = f"needs {size} bytes at {self.at}, but the file ends at {len(self.buffer)}"
            raise CheckpointError(f"{self.path}: {what}", rule, "", _CURE)

    def scalar(self, form: str, what: str) -> Any:
        size = struct.calcsize(form)
        self.need(size, what)
        (value,) = struct.unpack_from(form, self.buffer, self.at)
        self.at += size
        return value

    def count(self, what: str, least_bytes: int) -> int:
        """Return a number of things of at least `least_bytes` each, which must fit into the rest of the file."""
        number: int = self.scalar("<Q", what)
        self.need(number * least_bytes, f"{what} {number}")
        return number

    def string(self, what: str) -> str:
        size = self.count(what, 1)
        data = self.buffer[self.at : self.at + size]
        self.at += size
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: {what}", "must be UTF-8", error, _CURE) from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string(key)
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: {key}", "is of a type that GGUF does not have", kind, _CURE)
        return self.scalar(_SCALARS[kind], key)

    def array(self, key: str) -> Any:
        kind = self.scalar("<I", key)
        if kind == _STRING:
            return [self.string(key) for _ in range(self.count(key, 8))]
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: {key}", "must be an array of numbers or strings", f"type {kind}", _CURE)
        dtype = np.dtype(np.bool_ if kind == 7 else _SCALARS[kind])
        length = self.count(key, dtype.itemsize)
        numbers = np.frombuffer(self.buffer, dtype, length, self.at) if length else np.zeros(0, dtype)
        self.at += length * dtype.itemsize
        return numbers


@dataclass(frozen=True, slots=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _tensor_info(cursor: _Cursor) -> _Info:
    name = cursor.string("tensor name")
    dimensions = cursor.scalar("<I", name)
    if not 1 <= dimensions <= 3:
        raise CheckpointError(f"{cursor.path}: {name}", "must have one to three dimensions", dimensions, _CURE)
    shape = tuple(cursor.scalar("<Q", name) for _ in range(dimensions))[::-1]
    if min(shape) < 1:
        raise CheckpointError(f"{cursor.path}: {name}", "must not be empty", shape, _CURE)
    return _Info(name, shape, cursor.scalar("<I", name), cursor.scalar("<Q", name))


def _map_tensors(stored: Stored, header: int, infos: list[_Info], alignment: Any) -> dict[str, GGUFTensor]:
    """Check kinds, sizes, ends and overlaps of all tensors, then return them. `header`: its bytes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    path, size = stored.path, stored.nbytes
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment", "must be a power of two", alignment, _CURE)
    start = -(-header // alignment) * alignment
    names = {member.value: member for member in GGMLQuantizationType}
    tensors: dict[str, GGUFTensor] = {}
    spans = []
    for info in infos:
        member = names.get(info.kind)
        if member is None:
            raise CheckpointError(f"{path}: {info.name}", "is of a type that GGML does not have", info.kind, "Update the gguf library.")
        block, block_bytes = GGML_QUANT_SIZES[member]
        columns = info.shape[-1]
        if columns % block:
            raise CheckpointError(f"{path}: {info.name}", f"must have columns in blocks of {block} for {member.name}", columns, _CURE)
        row_bytes, rows = columns // block * block_bytes, math.prod(info.shape[:-1])
        begin, end = start + info.offset, start + info.offset + rows * row_bytes
        if end > size:
            raise CheckpointError(f"{path}: {info.name}", f"ends at byte {end}, but the file ends at {size}", "", _CURE)
        if info.offset % alignment or info.name in tensors:
            raise CheckpointError(f"{path}: {info.name}", f"must be there once, at a multiple of {alignment}", info.offset, _CURE)
        flat = stored.span(begin, rows * row_bytes)
        data = flat.reshape(rows, row_bytes) if len(info.shape) > 1 else flat
        tensors[info.name] = GGUFTensor(info.shape, member.name, data, begin)
        spans.append((begin, end, info.name))
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise CheckpointError(f"{path}: {second}", "must not overlap another tensor", first, _CURE)
    return tensors
