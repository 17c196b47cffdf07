"""Exports: a kept model, or its delta, as files for other programs; and a model merged with its deltas as a new base.

Files take their names when they are whole: a full disk or a kill leaves the earlier ones.
"""

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError, ConfigError
from ingle.core.files import os_errors, sync_file, sync_folder
from ingle.core.progress import Counted, silent
from ingle.core.spec import ModelConfig
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.base import Base, describe_base, read_base, write_base
from ingle.home.catalogue import CATALOGUE
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.kept import Kept, adopt, refuse_taken
from ingle.home.kept_file import KeptFile
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.kernels import formats
from ingle.model.checkpoint import Checkpoint, check_finite, open_checkpoint
from ingle.model.export_formats import Dtype, check_config, words_of, write_gguf, write_hf
from ingle.model.hf_config import config_to_hf, config_to_own
from ingle.model.tensor import expected_shapes
from ingle.model.tokenizer import Tokenizer

FORMATS = ("peft", "hf", "gguf", "ingle")
# Number types that each format can be written in; the first is the usual one.
TYPES: dict[str, tuple[str, ...]] = {
    "peft": ("f32",),
    "hf": ("f32", "f16"),
    "gguf": ("f16", "f32", "q8_0", "q4_1"),
    "ingle": ("f32", "f16"),
}
_DTYPES: dict[str, Dtype] = {"f32": "float32", "f16": "float16"}
Array = npt.NDArray[Any]


def check_type(format_: str, kind: str | None) -> str:
    """Return the type, or the format's usual one. Raises ConfigError for one that the format doesn't have."""
    if kind is None:
        return TYPES[format_][0]
    if kind not in TYPES[format_]:
        raise ConfigError("--type", f"must be one of {', '.join(TYPES[format_])} for {format_}", kind)
    return kind


def export(home: Home, kept: Kept, format_: str, out: Path, kind: str, force: bool = False, progress: Counted = silent) -> Path:
    """Write a kept model, or its last delta, in one of `FORMATS`. Returns the folder or file. Raises the errors of that format's export."""
    if format_ == "gguf":
        return export_gguf(home, kept, out, kind, force, progress)
    if format_ == "peft":
        return export_peft(home, kept, out, force)
    return export_hf(home, kept, out, kind, force, progress, own=format_ == "ingle")


def export_peft(home: Home, kept: Kept, folder: Path, force: bool = False) -> Path:
    """Write the model's one delta as a folder that PEFT loads on the original model.

    Raises ConfigError for a model without a delta or with several, for kinds that PEFT has no file for, and for a folder that is taken;
    DeltaError for a family whose linears PEFT has in one piece.
    """
    from ingle.tuning.peft_files import check_exchange, write_peft

    if len(kept.deltas) != 1:
        cure = f"Merge those below it first (`ingle make merge`), or export {kept.name} as hf." if kept.deltas else "Name one: MODEL+NAME."
        raise ConfigError("model", "must have one delta, which PEFT then loads on the original model", len(kept.deltas), cure)
    [digest] = kept.deltas
    delta = get_delta(home, digest)
    check_exchange(open_checkpoint(home.base_folder(kept.base)).config)
    with new_folder(folder, force) as building:
        write_peft(building, delta.kind, delta_tensors(home, delta), original_name(read_base(home, kept.base)))
    return folder


def original_name(base: Base) -> str:
    """Name under which other libraries find the base: its repository, else the file or folder that it came from."""
    scheme, _, rest = base.source.partition(":")
    if scheme == "hub":
        return "/".join(rest.split("/")[:2])
    entry = CATALOGUE.get(rest) if scheme == "catalogue" else None
    return (entry.repo or entry.name) if entry is not None else rest


def export_hf(home: Home, kept: Kept, folder: Path, kind: str, force: bool = False, progress: Counted = silent, own: bool = False) -> Path:
    """Write the model, its deltas merged, as a Hugging Face folder; with `own` as one that only Ingle opens, hybrids included.

    Raises ConfigError for what Hugging Face has no class for and for a folder that is taken (unless `force`), DeltaError for a delta that
    can't be merged, HomeError where the disk refuses.
    """
    checkpoint, tokenizer = _opened(home, kept)
    config = _for_hf(checkpoint.config, own)
    with new_folder(folder, force) as building:
        write_hf(building, config, _tensors(checkpoint, config), _DTYPES[kind], tokenizer, progress, own)
    return folder


def export_gguf(home: Home, kept: Kept, path: Path, kind: str, force: bool = False, progress: Counted = silent) -> Path:
    """Write the model, its deltas merged, as a GGUF file: `path`, or NAME.TYPE.gguf within it. Returns the file. Raises as `export_hf`."""
    target = path if path.suffix.lower() == ".gguf" else path / f"{kept.name.replace('+', '-')}.{kind.upper()}.gguf"
    if target.exists() and not force:
        raise _taken(target)
    checkpoint, tokenizer = _opened(home, kept)
    check_config(checkpoint.config)
    words = words_of(tokenizer, checkpoint.config.vocab_size, checkpoint.metadata)
    type_: Any = kind
    write_gguf(target, checkpoint.config, _tensors(checkpoint, checkpoint.config), type_, words, kept.name, progress, checkpoint.tensor)
    return target


def without_place(home: Home, kept: Kept, kind: str) -> int:
    """Count the matrices in formats that GGUF lacks, where 4 bits are asked for: they are written in 8."""
    checkpoint = open_weights(home, kept)
    return sum(checkpoint.tensor(name).kind in formats.BYTES_16 for name in checkpoint.names) if kind == "q4_1" else 0


def merge(home: Home, kept: Kept, name: str, kind: str = "f32", progress: Counted = silent) -> Kept:
    """Keep the model, its deltas merged, as a base of its own. The same merge again changes nothing.

    Raises ConfigError for a name that can't be used or is taken, a model without deltas, and the errors of `export_hf`.
    """
    check_name(name)
    if not kept.deltas:
        raise ConfigError("model", "must have deltas to be merged", kept.name, f"Name one with a delta: {kept.name}+NAME.")
    checkpoint, tokenizer = _opened(home, kept)
    own = any(spec.memory != "none" or spec.sinks for spec in checkpoint.config.layers)
    config = _for_hf(checkpoint.config, own)
    with staging(home) as folder:
        write_hf(folder, config, _tensors(checkpoint, config), _DTYPES[kind], tokenizer, progress, own)
        files = tuple(KeptFile(path.name, path.stat().st_size, digest_file(path)) for path in sorted(folder.iterdir()))
        base = describe_base(files, f"merge:{kept.name}", kept.digest, read_base(home, kept.base).licence)
        refuse_taken(home, name, base.digest, replace=False)
        check_finite(open_checkpoint(folder))
        write_base(folder, base)
        sync_folder(folder)
        return adopt(home, folder, base, name)


# Files that an earlier export may hold beside those of this one: weights under other names, and its signature.
_OURS = re.compile(r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors|model\.sig|signer\.pub")


@contextmanager
def new_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Yield a folder to build in. It takes the name `target` when the block ends without an error, and is deleted otherwise.

    Raises ConfigError if `target` is taken, unless it is an empty folder or `force`, and even then where it holds files that would not come
    back; HomeError where the disk refuses.
    """
    target = target.absolute()
    occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if occupied and not force:
        raise _taken(target)
    mark = secrets.token_hex(4)
    building, old = target.parent / f".{target.name}.{mark}.part", target.parent / f".{target.name}.{mark}.old"
    try:
        with os_errors(target):
            building.mkdir(parents=True)
        yield building
        with os_errors(target):
            for path in building.iterdir():
                sync_file(path)
            sync_folder(building)
            if target.exists():
                _check_replaceable(target, building)
                target.rename(old)
            building.rename(target)
            sync_folder(target.parent)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for path in (building, old):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _check_replaceable(target: Path, building: Path) -> None:
    """Raises ConfigError if `target` holds files that an export does not write: `--force` replaces earlier exports only."""
    if not target.is_dir():
        raise ConfigError("--out", "must be a folder", f"{target}, which is a file", "Choose another name.")
    others = {path.name for path in target.iterdir() if not _OURS.fullmatch(path.name)}
    if foreign := sorted(others - {path.name for path in building.iterdir()}):
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        rule = "must hold nothing but an earlier export to be replaced"
        raise ConfigError("--out", rule, f"{target / foreign[0]}{more}", "Choose another folder, or move these away.")


def _taken(path: Path) -> ConfigError:
    return ConfigError("--out", "must be a new name", f"{path}, which is there already", "Choose another one, or add --force.")


def _opened(home: Home, kept: Kept) -> tuple[Checkpoint, Tokenizer]:
    checkpoint = open_weights(home, kept)
    return checkpoint, checkpoint_tokenizer(checkpoint, home.base_folder(kept.base))


def _tensors(checkpoint: Checkpoint, config: ModelConfig) -> Callable[[str], Array]:
    """Return a function that reads float32 by name; zeros for a bias that only the config has."""
    shapes, own = expected_shapes(config), set(checkpoint.names)

    def tensor(name: str) -> Array:
        values: Array = checkpoint.tensor(name).to_float32() if name in own else np.zeros(shapes[name], np.float32)
        if not np.isfinite(values).all():
            raise CheckpointError(name, "must hold finite numbers", "NaN or infinity", "The weights or a delta are damaged.")
        return values

    return tensor


def _for_hf(config: ModelConfig, own: bool) -> ModelConfig:
    """Return a config that Hugging Face has a class for: Llama's attention has all four biases or none, so missing ones become zeros. With
    `own`, layers may be any.

    Raises ConfigError where that isn't enough.
    """
    if config.family != "qwen2" and config.qkv_bias != config.output_bias:
        config = replace(config, qkv_bias=True, output_bias=True)
    try:
        (config_to_own if own else config_to_hf)(config)
    except ConfigError as error:
        cure = error.cure or "Serve it with Ingle, or write it for Ingle alone (--format ingle)."
        raise ConfigError(f"Hugging Face folder: {error.field}", error.rule, "", cure) from error
    return config
