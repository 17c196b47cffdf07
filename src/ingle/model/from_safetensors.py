"""Convert a Hugging Face folder (config.json and safetensors, one file or sharded) to a `ModelConfig` and tensors.

The safetensors library checks each header (bounds, overlaps, sizes, types); the bytes are mapped here, because the library's NumPy side
knows no bfloat16 and copies. Source: the format's description in the library's README.
"""

import json
import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.model.composite import left_out, parted_tensors
from ingle.model.config import config_from_hf
from ingle.model.family import families
from ingle.model.fields import Fields, read_json
from ingle.model.fused import parts_of
from ingle.model.tensor import PLAIN_BYTES, Tensor

INDEX = "model.safetensors.index.json"
MOST_DIMENSIONS = 5
"""A convolution over pictures in time has five."""
_CURE = "The file is damaged or incomplete; pull it again."


def tensors_from_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, Tensor], tuple[Path, ...], str]:
    """Return config, tensors by name, those of an eye that the model brings, their files, and in words what is left out.

    Raises CheckpointError for whatever is wrong.
    """
    table = read_json(folder / "config.json")
    config = config_from_hf(table, str(folder / "config.json"))
    index = folder / INDEX
    if index.exists():
        where, files = _sharded(index)
    else:
        files = (_single(folder),)
        where = {}
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in read_safetensors(file):
            if tensor.name in tensors or where.get(tensor.name, file) != file:
                raise CheckpointError(f"{file}: {tensor.name}", "must lie in one shard, the one that the index names", "", _CURE)
            tensors[tensor.name] = tensor
    missing = sorted(where.keys() - tensors.keys())
    if missing:
        raise CheckpointError(f"{index}: {missing[0]}", "is not in the shard that the index names", where[missing[0]].name, _CURE)
    text, eye = parted_tensors(table, tensors)
    if "ingle" not in table:  # our own folders hold the model's own tensors
        text = parts_of(config, text, families()[config.family].norm_offset)
    return config, text, eye, files, left_out(table, tensors)


def read_safetensors(path: Path) -> list[Tensor]:
    """Return the tensors of one file, mapped. Raises CheckpointError for a damaged header, a cut-off file or an unknown type."""
    try:
        with safe_open(path, framework="np"):  # the library's check of the whole header; nothing is read through it
            pass
        with path.open("rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(str(path), "must be a whole safetensors file", error, _CURE) from error
    start = 8 + int.from_bytes(buffer[:8], "little")
    header = json.loads(buffer[8:start])
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in header.items():
        shape, kind, (begin, end) = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"]
        if kind not in PLAIN_BYTES:
            cure = f"Known: {', '.join(PLAIN_BYTES)}. Use an unquantised release, or its GGUF."
            raise CheckpointError(f"{path}: {name}", "is of a type that Ingle does not read from safetensors", kind, cure)
        if not 1 <= len(shape) <= MOST_DIMENSIONS or min(shape) < 1:
            raise CheckpointError(f"{path}: {name}", f"must have one to {MOST_DIMENSIONS} dimensions, none of them 0", shape)
        flat = np.frombuffer(buffer, np.uint8, end - begin, start + begin)
        tensors.append(Tensor(name, shape, kind, flat.reshape(shape[0], -1) if len(shape) > 1 else flat))
    return tensors


def _sharded(index: Path) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """Return the shard of each tensor, from the index, and all shards. Raises CheckpointError if one is missing."""
    table = Fields(read_json(index), str(index)).table_of("weight_map")
    where = {}
    for name, file in table.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index}: {name}", "must name a file in the same folder", repr(file)[:80])
        where[name] = index.parent / file
    files = tuple(sorted(set(where.values())))
    missing = _names(file for file in files if not file.exists())
    if missing or not files:
        raise CheckpointError(str(index), "names shards that are not there", missing or "none at all", "Pull the model again.")
    return where, files


def _single(folder: Path) -> Path:
    preferred = folder / "model.safetensors"
    candidates = [preferred] if preferred.exists() else sorted(folder.glob("*.safetensors"))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise CheckpointError(str(folder), f"must have {INDEX} where there are several safetensors files", _names(candidates))
    cure = "Weights in pickles (.bin, .pt) are never loaded; take a release in safetensors or GGUF."
    raise CheckpointError(str(folder), "must hold model.safetensors", _names(sorted(folder.glob("*.bin"))) or "no weights", cure)


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
