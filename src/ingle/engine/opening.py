"""A kept model made ready to answer: packed if it is not yet, checked, mapped, with its tokenizer."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from ingle.core.errors import DeltaError, IngleError
from ingle.engine.cpu import CpuBackend
from ingle.engine.language_model import LanguageModel
from ingle.engine.packing import PackInfo, check_pack, pack_checkpoint, read_pack, unreached
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.kernels.jit import ADAPTER_KERNELS, build, needed
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.tokenizer import Tokenizer, open_tokenizer

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def silent(_what: str, _done: int, _all: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a kept model's files lie, and where derived ones may be put."""

    name: str
    folder: Path
    """The original files, never written."""
    digest: str
    """Of the base and its deltas."""
    packs: Path
    """A folder for this base's packed weights; each format has its own below."""


def kept_source(home: Home, kept: Kept) -> Source:
    """Where the files of a kept model lie. Raises DeltaError for one with deltas: leaving them out would answer as another model."""
    if kept.deltas:
        raise DeltaError(f"model {kept.name}", "has deltas, which this version can't apply yet", len(kept.deltas), "Update Ingle.")
    return Source(kept.name, home.base_folder(kept.base), kept.base, home.pack_folder(kept.base))


def list_packs(source: Source) -> list[PackInfo]:
    """The packs that are ready to be served, by format."""
    found = (read_pack(path.parent, source.digest) for path in sorted(source.packs.glob("*/pack.json")))
    return [info for info in found if info is not None]


def warm(source: Source, format_: str = "auto", cache_dtype: str | None = None, progress: Progress = silent) -> PackInfo:
    """Packs the weights and compiles the kernels that they need, if that has not been done; what `open_model` would do first.

    Raises CheckpointError for files that can't be read, HomeError when the disk is full, KernelError.
    """
    info = _packed(source, format_, progress)
    skipped = unreached(info, cache_dtype or default_cache(format_)) | ADAPTER_KERNELS
    kernels = [*needed("decoder_step", skipped), "softmax_pick"]
    build(kernels, lambda done, of: progress("compiling kernels", done, of))
    return info


def default_cache(format_: str) -> str:
    """float16 for keys and values, unless the weights are asked for in float32: then nothing is rounded."""
    return "float32" if format_ == "fp32" else "float16"


def open_model(
    source: Source, format_: str = "auto", threads: int | None = None, cache_dtype: str | None = None, progress: Progress = silent
) -> LanguageModel:
    """The model on the CPU backend. Raises like `warm`, and CheckpointError if packed weights are not what they were."""
    info = warm(source, format_, cache_dtype, progress)
    folder = source.packs / format_
    fault: list[IngleError] = []

    def check() -> None:  # hashing 100 MB takes as long as reading the vocabulary: both at once
        try:
            check_pack(folder, info)
        except IngleError as error:
            fault.append(error)

    checking = Thread(target=check)
    checking.start()
    try:
        tokenizer = open_tokenizer(folder)
        backend = CpuBackend(folder, info, threads, cache_dtype or default_cache(format_))
    finally:
        checking.join()
    if fault:
        raise fault[0]
    _trim()
    return LanguageModel(source.name, backend, tokenizer)


def _trim() -> None:
    """Gives the memory that reading the vocabulary took for a moment (13 MB) back to the system, where the C library can (glibc)."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None:
        trim(0)


def _packed(source: Source, format_: str, progress: Progress) -> PackInfo:
    folder = source.packs / format_
    info = read_pack(folder, source.digest)
    if info is None:
        checkpoint = open_checkpoint(source.folder)
        tokenizer = checkpoint_tokenizer(checkpoint, source.folder)
        tokenizer.check_fits(checkpoint.config)
        tokenizer.save(folder)
        info = pack_checkpoint(checkpoint, source.digest, format_, folder, lambda done, of: progress("packing weights", done, of))
    return info


def checkpoint_tokenizer(checkpoint: Checkpoint, folder: Path) -> Tokenizer:
    """The tokenizer that came with the weights: inside a GGUF file, or beside the safetensors."""
    if checkpoint.metadata:
        from ingle.model.tokenizer_gguf import tokenizer_from_gguf

        return tokenizer_from_gguf(checkpoint.metadata)
    return open_tokenizer(folder)
