"""A kept model made ready to answer: packed if it is not yet, checked, mapped, with its tokenizer and its deltas.

Deltas that become part of the weights are merged in float32 into what is packed; the base's files are never written. A matrix that a
delta touched has no 4-bit blocks any more that could be kept without loss, so the format `auto` packs it in 8 bits, as it does with all
that comes in floating point; matrices that no delta touched stay what they are in the file.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock, Thread
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import DeltaError, IngleError
from ingle.core.files import sweep_unfinished
from ingle.core.lock import file_lock
from ingle.engine.backend import Backend
from ingle.engine.changes import VIRTUAL, Change, additions_of, merged, parted, virtual_of
from ingle.engine.cpu import CpuBackend
from ingle.engine.language_model import LanguageModel
from ingle.engine.packing import PackInfo, cache_dtype, check_pack, pack_checkpoint, read_pack, unreached
from ingle.engine.prefixed import Prefixed
from ingle.engine.team import Cores
from ingle.home.deltas import delta_tensors, get_delta, manifest_of, stack_digest
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.kernels.jit import build, needed
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.tokenizer import Tokenizer, open_tokenizer

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def silent(_what: str, _done: int, _all: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a kept model's files lie, where derived ones may be put, and what its deltas come to (see engine/changes.py)."""

    name: str
    folder: Path
    """The original files, never written."""
    digest: str
    """Of the base and the deltas that are merged into its weights."""
    packs: Path
    """A folder for these weights when packed; each format has its own below."""
    home: Home | None = None
    """Where the deltas lie; None = there are none."""
    merged: tuple[Delta, ...] = ()
    """Deltas that become part of the weights, in their order."""
    beside: tuple[Delta, ...] = ()
    """Deltas after these that stay beside the weights, so that models which differ in them only share a backend."""
    virtual: Delta | None = None
    """Tokens before every text."""
    given: Mapping[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=lambda: MappingProxyType({}))
    """Tensors of deltas that lie in no home yet, by the delta's digest."""

    def changes(self, deltas: Sequence[Delta]) -> list[Change]:
        """Deltas of this source with their tensors, every byte checked. Raises HomeError for a missing or altered file."""
        found = []
        for delta in deltas:
            tensors = self.given.get(delta.digest)
            if tensors is None:
                assert self.home is not None, "deltas lie in a home"
                tensors = delta_tensors(self.home, delta)
            found.append(Change(delta.name, delta.kind, tensors))
        return found


def kept_source(home: Home, kept: Kept) -> Source:
    """Where the files of a kept model lie, and how its deltas are served.

    Raises NotKept for a delta that is gone, DeltaError for deltas that were made for something else, or can't be served in this order.
    """
    return _stacked(home, kept, [get_delta(home, digest) for digest in kept.deltas])


def candidate_source(home: Home, kept: Kept, candidate: Candidate) -> Source:
    """The kept model with a candidate on it, exactly as it would be served if it were kept; nothing is written but, by `open_model`, a
    pack where the candidate's kind becomes part of the weights (`Source.packs`). Raises as `kept_source` and `put_delta` do.
    """
    of = candidate
    delta = manifest_of(of.name, of.kind, of.base_digest, of.tensors, of.origin)
    source = _stacked(home, kept, [*(get_delta(home, digest) for digest in kept.deltas), delta])
    return replace(source, name=f"{kept.name}+{of.name}", given={delta.digest: of.tensors})


def _stacked(home: Home, kept: Kept, deltas: Sequence[Delta]) -> Source:
    digests = [delta.digest for delta in deltas]
    for at, delta in enumerate(deltas):
        delta.check_base(stack_digest(kept.base, digests[:at]))
    into, beside = parted(kept.name, [delta.kind for delta in deltas])
    digest = stack_digest(kept.base, digests[:into])
    rest = deltas[into + beside :]
    return Source(
        kept.name, home.base_folder(kept.base), digest, home.pack_folder(digest), home, tuple(deltas[:into]),
        tuple(deltas[into : into + beside]), rest[0] if rest else None,
    )  # fmt: skip


def list_packs(source: Source) -> list[PackInfo]:
    """The packs that are ready to be served, by format."""
    found = (read_pack(path.parent, source.digest) for path in sorted(source.packs.glob("*/pack.json")))
    return [info for info in found if info is not None]


def warm(source: Source, format_: str = "auto", cache: str = "auto", progress: Progress = silent) -> PackInfo:
    """Packs the weights and compiles the kernels that they need, if that has not been done; what `open_model` would do first.

    Raises CheckpointError for files that can't be read, HomeError when the disk is full, KernelError.
    """
    info = _packed(source, format_, progress)
    skipped = unreached(info, cache_dtype(cache, format_))  # those of adapters are not: one may come while others answer
    kernels = [*needed("decoder_step", skipped), "softmax_pick"]
    build(kernels, lambda done, of: progress("compiling kernels", done, of))
    return info


def open_model(
    source: Source, format_: str = "auto", threads: int | None = None, cache: str = "auto", progress: Progress = silent
) -> LanguageModel:
    """The model on the CPU backend. Raises like `warm`, CheckpointError if packed weights are not what they were, and HomeError or
    DeltaError for deltas that are damaged or don't fit.
    """
    return _with_deltas(source, *_open_weights(source, format_, Cores(threads), cache, progress))


class Opener:
    """Opens kept models in one format. Those with the same weights share one backend: the weights lie in memory once, and requests
    for any of these models go into one batch. A backend is let go when no model uses it any more.

    Where nobody watches, weights are packed by a process of its own (engine/packing_worker.py), so that answers being written go on.
    """

    def __init__(self, format_: str = "auto", cores: Cores | None = None, cache: str = "auto") -> None:
        self._settings = format_, cores or Cores(), cache
        self._backends: WeakValueDictionary[str, CpuBackend] = WeakValueDictionary()
        self._tokenizers: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
        self._locks: dict[str, Lock] = {}
        self._words = Lock()

    def __call__(self, home: Home, kept: Kept, progress: Progress | None = None) -> LanguageModel:
        """The model. Raises what `kept_source` and `open_model` raise. For several threads at once."""
        source, format_ = kept_source(home, kept), self._settings[0]

        def apart() -> None:
            if progress is None and read_pack(source.packs / format_, source.digest) is None:
                from ingle.engine.packing_worker import warm_apart

                warm_apart(home, kept, format_, self._settings[2])

        return self.open(source, progress or silent, apart)

    def open(self, source: Source, progress: Progress = silent, before: Callable[[], object] = lambda: None) -> LanguageModel:
        """The model of a source; `before` is called if its weights are not open yet. Raises what `open_model` raises."""
        base = source.folder.name
        with self._locks.setdefault(source.digest, Lock()):
            backend, tokenizer = self._backends.get(source.digest), self._tokenizers.get(base)  # no delta touches the words
            if backend is None or tokenizer is None:
                before()
                backend, tokenizer = _open_weights(source, *self._settings, progress, tokenizer)
                self._backends[source.digest] = backend
                with self._words:  # other weights of this base may have been opened meanwhile: the first tokenizer serves all
                    tokenizer = self._tokenizers.setdefault(base, tokenizer)
        return _with_deltas(source, backend, tokenizer)


def _open_weights(
    source: Source, format_: str, cores: Cores, cache: str, progress: Progress, known: Tokenizer | None = None
) -> tuple[CpuBackend, Tokenizer]:
    """The base with what is merged into it. `known`: its tokenizer; to make one from its file holds all other threads up for 0.1 s."""
    info = warm(source, format_, cache, progress)
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
        tokenizer = known or open_tokenizer(folder)
        backend = CpuBackend(folder, info, cores, cache_dtype(cache, format_))
    finally:
        checking.join()
    if fault:
        raise fault[0]
    _trim()
    return backend, tokenizer


def _with_deltas(source: Source, runner: CpuBackend, tokenizer: Tokenizer) -> LanguageModel:
    """The model whose weights `runner` has, with what stays beside them."""
    backend: Backend = runner
    if source.virtual is not None:
        [change] = source.changes([source.virtual])
        backend = Prefixed(runner, *virtual_of(runner.config, change), source.virtual.digest)
    if not source.beside:
        return LanguageModel(source.name, backend, tokenizer)
    changes, digest = source.changes(source.beside), digest_json([delta.digest for delta in source.beside])
    # A low-rank addition is the same whatever it is added to; others are computed from the weights, which takes a moment to open.
    low_rank = all(change.kind == "lora" for change in changes)
    additions = additions_of(runner.config, changes, None if low_rank else _checkpoint(source))
    return LanguageModel(source.name, backend, tokenizer, runner.adapter(additions, digest), digest)


def beside(home: Home, kept: Kept, model: LanguageModel, delta: Delta) -> LanguageModel:
    """The model, which is `kept` opened, with one more delta of the kind `lora` beside its weights; the same weights serve both.

    Raises DeltaError if the delta was made for something else, or can't stand there (see `can_stand_beside`), HomeError if it is damaged.
    """
    delta.check_base(kept.digest)
    can_stand_beside(home, kept, delta.kind)
    source = kept_source(home, replace(kept, deltas=(*kept.deltas, delta.digest)))
    additions = additions_of(model.backend.config, source.changes(source.beside))
    digest = digest_json([one.digest for one in source.beside])
    return replace(model, adapter=model.backend.adapter(additions, digest), adapter_digest=digest)


def can_stand_beside(home: Home, kept: Kept, kind: str = "lora") -> None:
    """Raises DeltaError where a delta of that kind can't be served beside what this model is made of, on the same weights."""
    kinds = [get_delta(home, digest).kind for digest in kept.deltas]
    if kind != "lora" or (kinds and kinds[-1] in ("bottleneck", *VIRTUAL)):
        rule = "can't have a lesson beside it: its last delta must come last"
        got, cure = (kinds[-1], "Teach the model without that delta.") if kind == "lora" else (kind, "Lessons are of the kind lora.")
        raise DeltaError(f"model {kept.name}", rule, got, cure)


def _trim() -> None:
    """Gives the memory that reading the vocabulary took for a moment (13 MB) back to the system, where the C library can (glibc)."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None:
        trim(0)


def _packed(source: Source, format_: str, progress: Progress) -> PackInfo:
    folder = source.packs / format_
    if (info := read_pack(folder, source.digest)) is not None:
        return info
    with file_lock(folder / "packing.lock", lambda _who: progress("waiting for another process that packs weights", 0, 1)):
        if (info := read_pack(folder, source.digest)) is not None:
            return info
        sweep_unfinished(folder / "weights.bin")
        checkpoint = _checkpoint(source)
        tokenizer = checkpoint_tokenizer(checkpoint, source.folder)
        tokenizer.check_fits(checkpoint.config)
        tokenizer.save(folder)
        return pack_checkpoint(checkpoint, source.digest, format_, folder, lambda done, of: progress("packing weights", done, of))


def _checkpoint(source: Source) -> Checkpoint:
    """The original weights with the changes that become part of them."""
    return merged(open_checkpoint(source.folder), source.changes(source.merged))


def open_weights(home: Home, kept: Kept) -> Checkpoint:
    """The weights of a kept model, its deltas merged. Raises CheckpointError, and DeltaError for a kind that can't be."""
    checkpoint = open_checkpoint(home.base_folder(kept.base))
    if not kept.deltas:
        return checkpoint
    deltas = [get_delta(home, digest) for digest in kept.deltas]
    return merged(checkpoint, [Change(delta.name, delta.kind, delta_tensors(home, delta)) for delta in deltas])


def checkpoint_tokenizer(checkpoint: Checkpoint, folder: Path) -> Tokenizer:
    """The tokenizer that came with the weights: inside a GGUF file, or beside the safetensors."""
    if checkpoint.metadata:
        from ingle.model.tokenizer_gguf import tokenizer_from_gguf

        return tokenizer_from_gguf(checkpoint.metadata)
    return open_tokenizer(folder)
