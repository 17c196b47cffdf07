"""Pack a checkpoint for serving: every matrix in the kernels' layout, in one file that is mapped at each start."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.config import from_table, to_table
from ingle.core.delta import Delta
from ingle.core.digest import digest_bytes, digest_file, digest_json
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import atomic_file, sweep_unfinished, write_atomic
from ingle.core.process import file_lock
from ingle.core.progress import Counted, Progress, silent
from ingle.core.spec import ModelConfig
from ingle.core.state import StateLayout
from ingle.engine.composite_sight import sight_kernels
from ingle.engine.delta_kinds import Change, merged, parted
from ingle.home.deltas import ABILITIES, delta_tensors, fitting_bases, get_delta, manifest_of, stack_digest
from ingle.home.kept import Kept
from ingle.home.kept_file import KeptFile
from ingle.home.lean import CURE, LEAN, WEIGHTS, is_lean
from ingle.home.place import Home
from ingle.kernels import formats, panels
from ingle.kernels.jit import MEMORY_KERNELS, build, needed
from ingle.kernels.layout import LINEARS
from ingle.kernels.panels import LOSSLESS, pack_stored
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.tensor import Tensor
from ingle.model.text_encoder import encoder_kernels
from ingle.model.tokenizer import Tokenizer, open_tokenizer

# `auto` keeps the file's blocks where a kernel multiplies them without loss (`kernels.panels.LOSSLESS`), else int8. A matrix with a merged
# delta becomes int8, one scale per row.
Format = Literal["auto", "int4", "int8", "bf16", "fp32"]
Array = npt.NDArray[Any]
INFO = "pack.json"  # name of the description
_SEAL = "digest"  # key of the description's own digest
_VERSION = 6
_MEMORY = ".self_attn.memory."
VECTOR, _HEADS, _MAPS, _TAPS = -1, -2, -3, -4  # kinds beside those of `kernels.layout`
_ALIGNMENT = 64  # bytes: a cache line, so that no vector of weights straddles two


@dataclass(frozen=True, slots=True)
class PackedPlace:
    """Place of one tensor in the file: (offset, bytes) of weights, scales and minima. A vector is float32 padded to 32, of kind −1; tensors
    of recurrent memories: see `_of_memory`; taps of convolutions [channels, 1, length] lie as float32 [length, channels], padded to 32."""

    kind: int
    rows: int
    columns: int
    planes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PackInfo:
    """The description of a packed model: its config, its format, each tensor's place, and the digests of its files."""

    version: int
    format: str
    base_digest: str
    config: ModelConfig
    places: dict[str, PackedPlace]
    files: tuple[KeptFile, ...]  # first the packed matrices, then whatever else forms an answer: the tokenizer's two files

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrices."""
        return self.files[0].size

    @cached_property
    def digest(self) -> str:
        """The model digest: of every byte that an answer depends on beside the request."""
        return digest_json(to_table(self))


def cache_dtype(cache: str, format_: str) -> str:
    """Return the number type of keys and values: `auto` is float16, or float32 for float32 weights, so that nothing is rounded."""
    if cache != "auto":
        return cache
    return "float32" if format_ == "fp32" else "float16"


def unreached(info: PackInfo, cache: str) -> frozenset[str]:
    """Return the kernels that this pack and cache never call."""
    kinds = {place.kind for place in info.places.values()}
    by_cache = {"float32": "attention_f32", "float16": "attention_f16", "int8": "attention_int8"}
    memories = frozenset() if any(spec.remembering(info.config.num_kv_heads) for spec in info.config.layers) else MEMORY_KERNELS
    unmixed = {name for name, there in _sublayers(info.config).items() if not there}
    other_caches = {name for dtype, name in by_cache.items() if dtype != cache}
    return memories | other_caches | unmixed | {name for name, own in LINEARS.items() if kinds.isdisjoint(own)}


def _sublayers(config: ModelConfig) -> dict[str, bool]:
    """Return whether any layer reaches each kernel of `jit.SUBLAYER_KERNELS`."""
    mixers = {spec.mixer for spec in config.layers}
    return {"short_convolution": "convolution" in mixers, "gated_delta": "delta" in mixers, "mixture": config.experts is not None}


def pack_checkpoint(
    checkpoint: Checkpoint, base_digest: str, format_: str, folder: Path, progress: Counted = silent,
    words: Mapping[str, bytes] = MappingProxyType({}),
) -> PackInfo:  # fmt: skip
    """Write the matrices and `words` (the tokenizer's files), then `pack.json`, without which a pack doesn't count.

    `progress` gets tensors done, of all. Raises ConfigError for an unknown format, HomeError when the disk is full.
    """
    if format_ not in get_args(Format):
        raise ConfigError("format", f"must be one of {', '.join(get_args(Format))}", format_)
    for name, data in words.items():
        write_atomic(folder / name, data)
    with atomic_file(folder / WEIGHTS) as file:
        info = packed_as(checkpoint, base_digest, format_, file.write, progress, words)
    write_atomic(folder / INFO, json.dumps(to_table(info) | {_SEAL: info.digest}, indent=1).encode())
    progress(len(info.places), len(info.places))
    return info


def packed_as(
    checkpoint: Checkpoint, base_digest: str, format_: str, write: Callable[[bytes], object] = lambda _data: None,
    progress: Counted = silent, words: Mapping[str, bytes] = MappingProxyType({}),
) -> PackInfo:  # fmt: skip
    """Return the description of a pack, and write its matrices piece by piece; without `write`, only compute it."""
    hasher, places, offset = hashlib.sha256(), {}, 0
    names = checkpoint.names

    def put(plane: Array) -> tuple[int, int]:
        nonlocal offset
        data = plane.tobytes() + bytes(-plane.nbytes % _ALIGNMENT)
        write(data)
        hasher.update(data)
        offset += len(data)
        return offset - len(data), plane.nbytes

    for done, name in enumerate(names):
        progress(done, len(names))
        tensor = checkpoint.tensor(name)
        if len(tensor.shape) == 1:
            places[name] = PackedPlace(VECTOR, 1, tensor.shape[0], (put(_vector(tensor.to_float32())),))
            continue
        if len(tensor.shape) == 3:
            taps = tensor.to_float32()[:, 0].T
            places[name] = PackedPlace(_TAPS, tensor.shape[0], tensor.shape[2], (put(np.pad(taps, ((0, 0), (0, -taps.shape[1] % 32)))),))
            continue
        if _MEMORY in name:
            kind, (rows, columns) = _MAPS if "_map" in name else _HEADS, tensor.shape
            plane = put(_of_memory(kind, tensor.to_float32(), checkpoint.config.head_dim))
            places[name] = PackedPlace(kind, rows, columns, (plane,))
            continue
        packed = _pack(tensor, format_)
        planes = tuple(put(plane) for plane in (packed.weights, packed.scales, packed.minima) if plane.size)
        places[name] = PackedPlace(packed.kind, packed.rows, packed.columns, planes)
    others = (KeptFile(name, len(data), digest_bytes(data)) for name, data in words.items())
    files = (KeptFile(WEIGHTS, offset, hasher.hexdigest()), *others)
    return PackInfo(_VERSION, format_, base_digest, checkpoint.config, places, files)


def read_pack(folder: Path, base_digest: str | None = None) -> PackInfo | None:
    """Return a folder's pack, or None if it has no undamaged description of this version (and base): it is then packed again."""
    path = folder / INFO
    try:
        file = path.stat()
        info = _read_info(path, (file.st_ino, file.st_size, file.st_mtime_ns))
    except (FileNotFoundError, ValueError, TypeError, AttributeError, ConfigError):
        return None
    return info if info is not None and base_digest in (None, info.base_digest) else None


@lru_cache(maxsize=8)
def _read_info(path: Path, _state: tuple[int, int, int]) -> PackInfo | None:
    """Read a description, once for each state of its file: that takes 30 ms, and opening a model asks several times."""
    table = json.loads(path.read_bytes())
    seal = table.pop(_SEAL, None)
    info = from_table(PackInfo, table) if table.get("version") == _VERSION else None
    return info if info is not None and info.digest == seal else None


def is_outdated(folder: Path) -> bool:
    """Return whether a folder's pack is of another version of Ingle, which this one packs again."""
    try:
        return bool(json.loads((folder / INFO).read_bytes())["version"] != _VERSION)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def check_pack(folder: Path, info: PackInfo, names: Collection[str] | None = None) -> None:
    """Raise CheckpointError unless the files (or those of these names) are bit for bit the packed ones."""
    cure = "Delete the folder; it is packed again from the kept model at the next start."
    if (folder / LEAN).exists():
        cure = CURE
    for file in info.files:
        if names is not None and file.name not in names:
            continue
        path = folder / file.name
        if not path.exists() or path.stat().st_size != file.size:
            raise CheckpointError(str(path), f"must have {file.size} bytes", path.stat().st_size if path.exists() else "no file", cure)
        got = digest_file(path)
        if got != file.sha256:
            raise CheckpointError(str(path), f"must have SHA-256 {file.sha256[:12]}…", f"{got[:12]}…", cure)


def _vector(values: Array) -> Array:
    return np.pad(values.astype(np.float32), (0, -len(values) % 32))


def _of_memory(kind: int, matrix: Array, dim: int) -> Array:
    """Return a matrix of a recurrent memory in float32, whatever the format, with every head dimension padded to `width`.

    `_HEADS` [N, heads · dim] (decay, write, gate) → [N · heads, width]; `_MAPS` [G · dim, dim] → for each of G maps [width/16, width, 16],
    in the layout of the kernel's S (kernels/mixers.py).
    """
    rest = -dim % 16
    if kind == _HEADS:
        return np.pad(matrix.reshape(-1, dim), ((0, 0), (0, rest)))
    maps = np.pad(matrix.reshape(-1, dim, dim), ((0, 0), (0, rest), (0, rest)))
    return np.ascontiguousarray(maps.reshape(len(maps), -1, 16, dim + rest).swapaxes(2, 3))


_FOUR_BITS = frozenset({"Q4_1", "Q4_0", "Q2_K", "Q3_K", "Q4_K", "IQ4_NL", "IQ4_XS", *formats.BYTES_16})  # kinds of four bits or fewer
# Small matrices that stay float32 where the file has them so: what they give is a choice of experts, or an exponent.
_EXACT = (".mlp.gate.weight", ".in_proj_a.weight", ".in_proj_b.weight")


def _is_vocabulary(name: str) -> bool:
    """Return whether it is the embedding or the output matrix: rounding them costs a small model most, so `int4` keeps 8 bits there."""
    return name in ("model.embed_tokens.weight", "lm_head.weight")


def _pack(tensor: Tensor, format_: str) -> panels.PackedLinear:
    native, vocabulary = tensor.kind in LOSSLESS, _is_vocabulary(tensor.name)
    if native and (format_ == "auto" or (format_ == "int4" and (tensor.kind in _FOUR_BITS) != vocabulary)):
        return pack_stored(tensor.kind, tensor.raw)
    if format_ == "bf16" and tensor.kind == "BF16":
        return panels.pack_bf16(np.ascontiguousarray(tensor.raw).view("<u2"))
    matrix = tensor.to_float32()
    if tensor.name.endswith(_EXACT):
        return panels.pack_fp32(matrix)
    match format_:
        case "fp32":
            return panels.pack_fp32(matrix)
        case "bf16":
            return panels.pack_bf16(panels.to_bf16(matrix))
        case "int4" if not vocabulary:
            return panels.pack_int4(matrix)
        case _:
            return panels.pack_int8(matrix)


def kept_as_stored(tensor: Tensor, format_: str) -> bool:
    """Return whether a pack of this format holds a tensor's own blocks, so that it takes about as many bytes as the file."""
    return format_ == "auto" and tensor.kind in LOSSLESS


# A kept model's weights for serving: its files, its deltas' roles, and packs of both.
# Mergeable deltas are merged in float32 into the pack; the base's files are never written. A merged matrix has no 4-bit blocks that could
# be kept without loss, so the format `auto` packs it in 8 bits, as it does with floating-point weights. Other matrices keep their blocks.


@dataclass(frozen=True, slots=True)
class Source:
    """A kept model's files, the place for its packs, and the roles of its deltas (see engine/delta_kinds.py)."""

    name: str
    folder: Path  # the original files, never written
    digest: str  # digest of the base and the deltas that are merged into its weights
    packs: Path  # folder of these weights' packs; each format has its own below
    home: Home | None = None  # the home of the deltas; None = there are none
    merged: tuple[Delta, ...] = ()  # deltas that are merged into the weights, in order
    beside: tuple[Delta, ...] = ()  # deltas after these that stay beside the weights; models that differ only in them share a backend
    virtual: Delta | None = None  # the delta of virtual tokens before every text
    media: tuple[Delta, ...] = ()  # deltas that act on pictures only
    # Tensors of deltas that no home holds yet, by the delta's digest.
    given: Mapping[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=lambda: MappingProxyType({}))

    def pack_folder(self, format_: str) -> Path:
        """Return where the pack of a format lies, or will: a lean base brings its own (home/lean.py)."""
        lean = format_ == "auto" and not self.merged and is_lean(self.folder)
        return self.folder if lean and read_pack(self.folder, self.digest) is not None else self.packs / format_

    def changes(self, deltas: Sequence[Delta]) -> list[Change]:
        """Return deltas of this source with their tensors, every byte checked. Raises HomeError for a missing or altered file."""
        changes = []
        for delta in deltas:
            tensors = self.given.get(delta.digest)
            if tensors is None:
                assert self.home is not None, "deltas lie in a home"
                tensors = delta_tensors(self.home, delta)
            changes.append(Change(delta.name, delta.kind, tensors))
        return changes


def kept_source(home: Home, kept: Kept) -> Source:
    """Return the source of a kept model.

    Raises NotKept for a delta that is gone, DeltaError for deltas that were made for something else, or can't be served in this order.
    """
    return _stacked(home, kept, [get_delta(home, digest) for digest in kept.deltas])


def candidate_source(home: Home, kept: Kept, candidate: Candidate) -> Source:
    """Return the kept model with a candidate on it, as it would be served if it were kept. Nothing is written, except a pack by
    `open_model` where the candidate is merged (`Source.packs`). Raises as `kept_source` and `put_delta` do."""
    of = candidate
    delta = manifest_of(of.name, of.kind, of.base_digest, of.tensors, of.origin)
    source = _stacked(home, kept, [*(get_delta(home, digest) for digest in kept.deltas), delta])
    return replace(source, name=f"{kept.name}+{of.name}", given={delta.digest: of.tensors})


def _stacked(home: Home, kept: Kept, deltas: Sequence[Delta]) -> Source:
    for at, delta in enumerate(deltas):
        delta.check_base(*fitting_bases(home, kept.base, [before.digest for before in deltas[:at]]))
    of_text = [delta for delta in deltas if delta.kind not in ABILITIES]
    into, beside = parted(kept.name, [delta.kind for delta in of_text])
    digest = stack_digest(kept.base, [delta.digest for delta in of_text[:into]])
    rest = of_text[into + beside :]
    return Source(
        kept.name, home.base_folder(kept.base), digest, home.pack_folder(digest), home, tuple(of_text[:into]),
        tuple(of_text[into : into + beside]), rest[0] if rest else None, tuple(delta for delta in deltas if delta.kind in ABILITIES),
    )  # fmt: skip


def list_packs(source: Source) -> list[PackInfo]:
    """Return the packs that are ready to be served, by format."""
    packs = (read_pack(folder, source.digest) for folder in pack_folders(source))
    return [info for info in packs if info is not None]


def pack_folders(source: Source) -> list[Path]:
    own = source.pack_folder("auto")
    return [*([own] if own == source.folder else []), *sorted(path.parent for path in source.packs.glob(f"*/{INFO}"))]


def warm(source: Source, format_: str = "auto", cache: str = "auto", progress: Progress = silent) -> PackInfo:
    """Pack the weights and compile their kernels, where that has not been done: the first part of `open_model`.

    Raises CheckpointError for files that can't be read, HomeError when the disk is full, KernelError.
    """
    info = packed(source, format_, progress)
    skipped = unreached(info, cache_dtype(cache, format_))  # those of adapters are not: one may come while others answer
    kernels = dict.fromkeys([*needed("decoder_step", skipped), "softmax_pick", *encoder_kernels(), *sight_kernels(source.folder, format_)])
    build(kernels, lambda done, of: progress("compiling kernels", done, of))
    return info


def packed(source: Source, format_: str, progress: Progress = silent) -> PackInfo:
    """Pack the weights where that has not been done. Raises as `warm` does."""
    folder = source.pack_folder(format_)
    if (info := read_pack(folder, source.digest)) is not None:
        return info
    with file_lock(folder / "packing.lock", lambda _who: progress("waiting for another process that packs weights", 0, 1)):
        if (info := read_pack(folder, source.digest)) is not None:
            return info
        sweep_unfinished(folder / WEIGHTS)
        checkpoint = merged_checkpoint(source)
        words = source_tokenizer(source, checkpoint).files()
        return pack_checkpoint(checkpoint, source.digest, format_, folder, lambda done, of: progress("packing weights", done, of), words)


def source_tokenizer(source: Source, checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer of a source's files. Raises CheckpointError, also if a token has no row in the embedding."""
    tokenizer = checkpoint_tokenizer(checkpoint, source.folder)
    tokenizer.check_fits(checkpoint.config)
    return tokenizer


def merged_checkpoint(source: Source) -> Checkpoint:
    """Return the original weights with the mergeable deltas merged in."""
    return merged(open_checkpoint(source.folder), source.changes(source.merged))


def open_weights(home: Home, kept: Kept) -> Checkpoint:
    """Return the weights of a kept model, its deltas merged. Raises CheckpointError, and DeltaError for a kind that can't be merged."""
    checkpoint = open_checkpoint(home.base_folder(kept.base))
    if not kept.deltas:
        return checkpoint
    deltas = [get_delta(home, digest) for digest in kept.deltas]
    return merged(checkpoint, [Change(delta.name, delta.kind, delta_tensors(home, delta)) for delta in deltas])


def checkpoint_tokenizer(checkpoint: Checkpoint, folder: Path) -> Tokenizer:
    """Return the tokenizer of the weights: inside a GGUF file, or beside the safetensors."""
    if checkpoint.metadata:
        from ingle.model.tokenizer import tokenizer_from_gguf

        return tokenizer_from_gguf(checkpoint.metadata)
    return open_tokenizer(folder)


# Memory of a kept model while it is served: its weights as they are packed, and its states. Nothing is opened or packed to know it.


LIBRARIES = 170_000_000  # bytes of Python, compiled kernels, the tokenizer, and a step's buffers
_BYTES = {"fp32": 4.0, "bf16": 2.0, "int4": 0.7}  # of a packed number; 8 bits and their scales where nothing else is said
_PACKING = 12  # bytes of each number of the largest matrix while it is packed


@dataclass(frozen=True, slots=True)
class ServedSize:
    """A model as it is served."""

    config: ModelConfig
    weights: int  # bytes of its packed weights, which are mapped
    packing: int  # bytes more that it takes to pack them; 0 where that has been done

    def state_bytes(self, tokens: int) -> int:
        """Bytes of a state of so many tokens."""
        return StateLayout.of(self.config).nbytes(tokens)


def served_size(home: Home, kept: Kept, format_: str = "auto") -> ServedSize:
    """Return the size of a kept model as it is served. Raises the errors of `kept_source` and `open_checkpoint`."""
    source = kept_source(home, kept)
    info = read_pack(source.pack_folder(format_), source.digest)
    if info is not None:
        return ServedSize(info.config, info.nbytes, 0)
    checkpoint = open_checkpoint(source.folder)
    tensors = [checkpoint.stored[name] for name in checkpoint.names]
    each = _BYTES.get(format_, 17 / 16)
    weights = sum(tensor.nbytes if kept_as_stored(tensor, format_) else math.prod(tensor.shape) * each for tensor in tensors)
    return ServedSize(checkpoint.config, round(weights), _PACKING * max(math.prod(tensor.shape) for tensor in tensors))
