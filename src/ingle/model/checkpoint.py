"""Open a folder or file of weights, and check all of it before any weight is used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.home.lean import read_lean
from ingle.model.expected import AGE, expected_shapes, row_order
from ingle.model.tensor import Tensor, check_kind

_IGNORED_ENDINGS = (".rotary_emb.inv_freq",)  # old Llama checkpoints carry what follows from the config


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Complete weights of the right shapes, mapped from their files."""

    config: ModelConfig
    files: tuple[Path, ...]
    """The files that hold the weights."""
    stored: Mapping[str, Tensor]
    """Tensors by Hugging Face's parameter name, rows as they lie in the file."""
    interleaved: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Tensors with rows in GGUF's order for RoPE, and their numbers of heads."""
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """A GGUF file's metadata, tokenizer included; empty for safetensors."""
    eye: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    """Tensors of an eye that the model brings, by transformers' name: see `model.composite`. They are no part of the language model."""

    left_out: str = ""
    """Parts of the model that are not run, in words."""

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
        from ingle.model.lean import open_lean

        gguf, config, tensors, interleaved = open_lean(path, lean)
        return _checked(Checkpoint(config, (gguf.path,), tensors, interleaved, gguf.metadata))
    ggufs = sorted(path.glob("*.gguf")) if path.is_dir() and not (path / "config.json").exists() else []
    if path.is_dir() and not ggufs:
        from ingle.model.from_safetensors import tensors_from_folder

        config, tensors, eye, files, left_out = tensors_from_folder(path)
        return _checked(Checkpoint(config, files, tensors, eye=MappingProxyType(eye), left_out=left_out))
    if len(ggufs) > 1:
        raise CheckpointError(str(path), "must hold one GGUF file", ", ".join(file.name for file in ggufs), "Name the file itself.")
    from ingle.model.from_gguf import tensors_from_gguf
    from ingle.model.gguf_header import Mapped, read_gguf

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
