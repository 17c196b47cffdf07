"""Pack a checkpoint for serving: every matrix in the kernels' layout, in one file that is mapped at each start."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_file, digest_json
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import atomic_file, write_atomic
from ingle.core.spec import ModelConfig
from ingle.kernels import blocks_16, pack
from ingle.kernels.jit import MEMORY_KERNELS
from ingle.kernels.layout import BF16, F32, INT3_16, INT4, INT4_16, INT8, INT8_GROUP
from ingle.model.checkpoint import Checkpoint, expected_shapes
from ingle.model.tensor import Tensor

Format = Literal["auto", "int4", "int8", "bf16", "fp32"]
"""`auto` keeps the file's blocks where a kernel multiplies them without loss (Q3_16, Q4_0, Q4_1, Q4_16, Q8_0), else int8. A matrix with a
merged delta becomes int8, one scale per row."""
Array = npt.NDArray[Any]
_VERSION = 3
_MEMORY = ".self_attn.memory."
_VECTOR, _HEADS, _MAPS = -1, -2, -3  # kinds beside those of `kernels.layout`
_ALIGNMENT = 64  # bytes: a cache line, so that no vector of weights straddles two


@dataclass(frozen=True, slots=True)
class Place:
    """Place of one tensor in the file: (offset, bytes) of weights, scales and minima. A vector is float32 padded to 32, of kind −1; tensors
    of recurrent memories: see `_of_memory`."""

    kind: int
    rows: int
    columns: int
    planes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PackInfo:
    """The description of a packed model: its config, its format, and each tensor's place."""

    version: int
    format: str
    base_digest: str
    config: ModelConfig
    places: dict[str, Place]
    nbytes: int
    sha256: str

    @property
    def digest(self) -> str:
        """The model digest: it changes with the base, its deltas and the format only."""
        return digest_json([self.base_digest, self.format, self.sha256])


def cache_dtype(cache: str, format_: str) -> str:
    """Return the number type of keys and values: `auto` is float16, or float32 for float32 weights, so that nothing is rounded."""
    if cache != "auto":
        return cache
    return "float32" if format_ == "fp32" else "float16"


def unreached(info: PackInfo, cache: str) -> frozenset[str]:
    """Return the kernels that this pack and cache never call."""
    kinds = {place.kind for place in info.places.values()}
    by_kind = {"linear_fp32": {F32}, "linear_bf16": {BF16}, "linear_int8": {INT8, INT8_GROUP}}
    by_kind |= {"linear_int4": {INT4}, "linear_int4_16": {INT4_16}, "linear_int3_16": {INT3_16}}
    by_cache = {"float32": "attention_f32", "float16": "attention_f16", "int8": "attention_int8"}
    memories = frozenset() if any(spec.remembering(info.config.num_kv_heads) for spec in info.config.layers) else MEMORY_KERNELS
    other_caches = {name for dtype, name in by_cache.items() if dtype != cache}
    return memories | other_caches | {*(name for name, served in by_kind.items() if not served & kinds)}


def pack_checkpoint(
    checkpoint: Checkpoint, base_digest: str, format_: str, folder: Path, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> PackInfo:
    """Write `weights.bin`, then `pack.json`, without which a pack doesn't count. `progress` gets tensors done, of all.

    Raises ConfigError for an unknown format, HomeError when the disk is full.
    """
    if format_ not in get_args(Format):
        raise ConfigError("format", f"must be one of {', '.join(get_args(Format))}", format_)
    hasher, places, offset = hashlib.sha256(), {}, 0
    names = checkpoint.names
    with atomic_file(folder / "weights.bin") as file:

        def write(plane: Array) -> tuple[int, int]:
            nonlocal offset
            data = plane.tobytes() + bytes(-plane.nbytes % _ALIGNMENT)
            file.write(data)
            hasher.update(data)
            offset += len(data)
            return offset - len(data), plane.nbytes

        for done, name in enumerate(names):
            progress(done, len(names))
            tensor = checkpoint.tensor(name)
            if len(tensor.shape) == 1:
                places[name] = Place(_VECTOR, 1, tensor.shape[0], (write(_vector(tensor.to_float32())),))
                continue
            if _MEMORY in name:
                kind, (rows, columns) = _MAPS if "_map" in name else _HEADS, tensor.shape
                plane = write(_of_memory(kind, tensor.to_float32(), checkpoint.config.head_dim))
                places[name] = Place(kind, rows, columns, (plane,))
                continue
            packed = _pack(tensor, "int8" if format_ == "int4" and _is_vocabulary(name) and tensor.kind != "Q8_0" else format_)
            planes = tuple(write(plane) for plane in (packed.weights, packed.scales, packed.minima) if plane.size)
            places[name] = Place(packed.kind, packed.rows, packed.columns, planes)
    info = PackInfo(_VERSION, format_, base_digest, checkpoint.config, places, offset, hasher.hexdigest())
    write_atomic(folder / "pack.json", json.dumps(to_table(info), indent=1).encode())
    progress(len(names), len(names))
    return info


def read_pack(folder: Path, base_digest: str | None = None) -> PackInfo | None:
    """Return a folder's pack, or None if it has none of this version (and base)."""
    try:
        table = json.loads((folder / "pack.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if table.get("version") != _VERSION or base_digest not in (None, table.get("base_digest")):
        return None
    return from_table(PackInfo, table)


def check_pack(folder: Path, info: PackInfo) -> None:
    """Raise CheckpointError unless `weights.bin` is bit for bit the packed file."""
    path = folder / "weights.bin"
    cure = "Delete the folder; it is packed again from the kept model at the next start."
    if not path.exists() or path.stat().st_size != info.nbytes:
        raise CheckpointError(str(path), f"must have {info.nbytes} bytes", path.stat().st_size if path.exists() else "no file", cure)
    got = digest_file(path)
    if got != info.sha256:
        raise CheckpointError(str(path), f"must have SHA-256 {info.sha256[:12]}…", f"{got[:12]}…", cure)


def unpacked(folder: Path, info: PackInfo) -> Iterator[tuple[str, Array]]:
    """Yield every tensor, by Hugging Face's name, as the kernels' float32: the naive reference of tests and PyTorch."""
    data = np.memmap(folder / "weights.bin", np.uint8, "r")
    for name in expected_shapes(info.config):
        place = info.places[name]
        planes = [np.asarray(data[offset : offset + size]) for offset, size in place.planes]
        if place.kind == _VECTOR:
            yield name, planes[0].view(np.float32)[: place.columns].copy()
        elif place.kind in (_HEADS, _MAPS):
            yield name, _from_memory(place, planes[0].view(np.float32), info.config.head_dim)
        else:
            yield name, pack.unpack(pack.PackedLinear(place.kind, place.rows, place.columns, *planes))


def _vector(values: Array) -> Array:
    return np.pad(values.astype(np.float32), (0, -len(values) % 32))


def _of_memory(kind: int, matrix: Array, dim: int) -> Array:
    """Return a matrix of a recurrent memory in float32, whatever the format, with every head dimension padded to `width`.

    `_HEADS` [N, heads · dim] (decay, write, gate) → [N · heads, width]; `_MAPS` [G · dim, dim] → for each of G maps [width/16, width, 16],
    in the layout of the kernel's S (kernels/memory.py).
    """
    rest = -dim % 16
    if kind == _HEADS:
        return np.pad(matrix.reshape(-1, dim), ((0, 0), (0, rest)))
    maps = np.pad(matrix.reshape(-1, dim, dim), ((0, 0), (0, rest), (0, rest)))
    return np.ascontiguousarray(maps.reshape(len(maps), -1, 16, dim + rest).swapaxes(2, 3))


def _from_memory(place: Place, plane: Array, dim: int) -> Array:
    """Undo `_of_memory`."""
    width = dim + -dim % 16
    if place.kind == _HEADS:
        return plane.reshape(-1, width)[:, :dim].reshape(place.rows, place.columns)
    maps = plane.reshape(-1, width // 16, width, 16).swapaxes(2, 3).reshape(-1, width, width)
    return np.ascontiguousarray(maps[:, :dim, :dim]).reshape(place.rows, place.columns)


def _is_vocabulary(name: str) -> bool:
    """Return whether it is the embedding or the output matrix: rounding them costs a small model most, so `int4` keeps 8 bits there."""
    return name in ("model.embed_tokens.weight", "lm_head.weight")


def _pack(tensor: Tensor, format_: str) -> pack.PackedLinear:
    native = _NATIVE.get(tensor.kind)
    four_bits = format_ == "int4" and (tensor.kind != "Q8_0" or _is_vocabulary(tensor.name))
    if native and (format_ == "auto" or four_bits):
        return native(tensor)
    if format_ == "bf16" and tensor.kind == "BF16":
        return pack.pack_bf16(np.ascontiguousarray(tensor.raw).view("<u2"))
    matrix = tensor.to_float32()
    match format_:
        case "fp32":
            return pack.pack_fp32(matrix)
        case "bf16":
            return pack.pack_bf16(_to_bf16(matrix))
        case "int4":
            return pack.pack_int4(matrix)
        case _:
            return pack.pack_int8(matrix)


def _to_bf16(matrix: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even."""
    words = matrix.view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def _blocks(tensor: Tensor, size: int) -> Array:
    """Return raw rows as blocks of 32 columns: uint8 [rows, groups, size]."""
    return np.ascontiguousarray(tensor.raw).reshape(tensor.shape[0], -1, size)


def _halves(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")[..., 0]


def _nibbles(blocks: Array) -> Array:
    """Unpack 16 bytes to 32 values: the low nibbles first, then the high ones."""
    return np.concatenate([blocks & 15, blocks >> 4], axis=2).reshape(blocks.shape[0], -1)


def _from_sixteens(kind: str) -> Callable[[Tensor], pack.PackedLinear]:
    return lambda tensor: pack.pack_sixteens(kind, *blocks_16.split(kind, tensor.raw))


def _from_q4_1(tensor: Tensor) -> pack.PackedLinear:
    blocks = _blocks(tensor, 20)
    return pack.pack_int4_values(_nibbles(blocks[..., 4:]), _halves(blocks, 0), _halves(blocks, 2))


def _from_q4_0(tensor: Tensor) -> pack.PackedLinear:
    blocks = _blocks(tensor, 18)
    scale = _halves(blocks, 0)
    return pack.pack_int4_values(_nibbles(blocks[..., 2:]), scale, (scale.astype(np.float32) * -8).astype(np.float16))


def _from_q8_0(tensor: Tensor) -> pack.PackedLinear:
    blocks = _blocks(tensor, 34)
    return pack.pack_int8_groups(np.ascontiguousarray(blocks[..., 2:]).view(np.int8).reshape(tensor.shape), _halves(blocks, 0))


_NATIVE = {"Q4_1": _from_q4_1, "Q4_0": _from_q4_0, "Q8_0": _from_q8_0} | {kind: _from_sixteens(kind) for kind in blocks_16.BLOCK_BYTES}
"""Packers for blocks that kernels multiply as they are."""
