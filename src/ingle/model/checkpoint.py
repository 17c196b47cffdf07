"""Open a folder or file of weights, and check all of it before any weight is used."""

import json
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.home.lean import read_lean
from ingle.model.family import families, parts_of
from ingle.model.fields import Fields, read_json
from ingle.model.hf_config import config_from_hf, left_out, parted_tensors
from ingle.model.tensor import AGE, PLAIN_BYTES, Tensor, check_kind, expected_shapes, row_order

# Convert a Hugging Face folder (config.json and safetensors, one file or sharded) to a `ModelConfig` and tensors.
# The safetensors library checks each header (bounds, overlaps, sizes, types); the bytes are mapped here, because the library's NumPy side
# knows no bfloat16 and copies. Source: the format's description in the library's README.


INDEX = "model.safetensors.index.json"
MOST_DIMENSIONS = 5  # a convolution over pictures in time has five
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
    from safetensors import SafetensorError, safe_open

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


_IGNORED_ENDINGS = (".rotary_emb.inv_freq",)  # old Llama checkpoints carry what follows from the config


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Complete weights of the right shapes, mapped from their files."""

    config: ModelConfig
    files: tuple[Path, ...]  # the files that hold the weights
    stored: Mapping[str, Tensor]  # tensors by Hugging Face's parameter name, rows as they lie in the file
    # Tensors with rows in GGUF's order for RoPE, and their numbers of heads.
    interleaved: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    # A GGUF file's metadata, tokenizer included; empty for safetensors.
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    # Tensors of an eye that the model brings, by transformers' name: see `model.hf_config`. They are no part of the language model.
    eye: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    left_out: str = ""  # parts of the model that are not run, in words

    @property
    def names(self) -> tuple[str, ...]:
        """Hugging Face's parameter names, in the order of the model. A tied `lm_head.weight` is not among them."""
        return tuple(expected_shapes(self.config))

    def tensor(self, name: str) -> Tensor:
        """Return one tensor, rows in Hugging Face's order: mapped, or copied where GGUF permuted them.

        Raises CheckpointError for a name that is not among `names`.
        """
        if name not in self.stored:
            raise CheckpointError(name, "is not a tensor of this checkpoint", "", "`names` lists them.")
        tensor = self.stored[name]
        order = row_order(self.config, name, tensor.shape[0], self.interleaved.get(name))
        return tensor if order is None else _in_order(tensor, order)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a Hugging Face folder, a folder with one GGUF file, or a GGUF file; or a lean base (home/lean.py) as the file that it was.

    Raises CheckpointError if anything is missing, cut off, unknown, or of another shape or type than the config says.
    """
    if not path.exists():
        raise CheckpointError(str(path), "is not there", "", "Name a folder with config.json and safetensors, or a GGUF file.")
    if path.is_dir() and (lean := read_lean(path)) is not None:
        from ingle.model.lean_checkpoint import open_lean

        gguf, config, tensors, interleaved = open_lean(path, lean)
        return _checked(Checkpoint(config, (gguf.path,), tensors, interleaved, gguf.metadata))
    ggufs = sorted(path.glob("*.gguf")) if path.is_dir() and not (path / "config.json").exists() else []
    if path.is_dir() and not ggufs:
        config, tensors, eye, files, left_out = tensors_from_folder(path)
        return _checked(Checkpoint(config, files, tensors, eye=MappingProxyType(eye), left_out=left_out))
    if len(ggufs) > 1:
        raise CheckpointError(str(path), "must hold one GGUF file", ", ".join(file.name for file in ggufs), "Name the file itself.")
    from ingle.model.gguf import Mapped, read_gguf, tensors_from_gguf

    file = ggufs[0] if ggufs else path
    gguf = read_gguf(Mapped(file))
    config, tensors, interleaved = tensors_from_gguf(gguf)
    return _checked(Checkpoint(config, (file,), tensors, interleaved, gguf.metadata))


def check_finite(checkpoint: Checkpoint, progress: Callable[[int], None] = lambda _: None) -> None:
    """Read every weight once. `progress` gets the bytes of each tensor. Raises CheckpointError at the first NaN or infinity."""
    for name, tensor in ({name: checkpoint.stored[name] for name in checkpoint.names} | dict(checkpoint.eye)).items():
        with np.errstate(all="ignore"):
            if not all(np.isfinite(rows).all() for rows in tensor.row_chunks()):
                raise CheckpointError(name, "must hold finite numbers only", "NaN or infinity", "The weights are damaged; pull them again.")
        progress(tensor.nbytes)


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint if it holds exactly the tensors of its config."""
    where, stored = str(checkpoint.files[0].parent), checkpoint.stored
    expected = expected_shapes(checkpoint.config)
    older = {name: shape for name, shape in expected.items() if name.endswith(AGE) and name not in stored}
    stored = {**stored, **{name: Tensor(name, shape, "F32", np.zeros(4 * shape[0], np.uint8)) for name, shape in older.items()}}
    for name, shape in expected.items():
        if name not in stored:
            raise CheckpointError(f"{where}: {name}", "is missing", "", "The checkpoint is incomplete; pull it again.")
        if stored[name].shape != shape:
            raise CheckpointError(f"{where}: {name}", f"must have shape {shape}, as the config says", stored[name].shape)
        check_kind(stored[name].kind, f"{where}: {name}")
    tied_copy = {"lm_head.weight"} if checkpoint.config.tie_embeddings else set()
    for name in stored.keys() - expected.keys() - tied_copy:
        if not name.endswith(_IGNORED_ENDINGS):
            cure = "This model has parts that Ingle would leave out; it cannot be run."
            raise CheckpointError(f"{where}: {name}", "is not a tensor of a model with this config", stored[name].shape, cure)
    return replace(checkpoint, stored=stored) if older else checkpoint


def _in_order(tensor: Tensor, order: npt.NDArray[np.int64]) -> Tensor:
    rows = tensor.shape[0]
    stored = tensor.raw
    raw = stored if stored.ndim == 2 else stored.reshape(rows, -1)
    return Tensor(tensor.name, tensor.shape, tensor.kind, raw[order].reshape(stored.shape))
