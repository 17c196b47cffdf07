"""A kept model's weights as they are served: where its files lie, what its deltas come to, and packs of both.

Deltas that become part of the weights are merged in float32 into what is packed; the base's files are never written. A matrix that a
delta touched has no 4-bit blocks any more that could be kept without loss, so the format `auto` packs it in 8 bits, as it does with all
that comes in floating point; matrices that no delta touched stay what they are in the file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.files import sweep_unfinished
from ingle.core.lock import file_lock
from ingle.engine.delta_kinds import Change, merged, parted
from ingle.engine.packing import PackInfo, cache_dtype, pack_checkpoint, read_pack, unreached
from ingle.home.deltas import delta_tensors, get_delta, manifest_of, stack_digest
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.kernels.jit import build, needed
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.tokenizer import Tokenizer
from ingle.model.tokenizer_hf import open_tokenizer

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def silent(_what: str, _done: int, _all: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a kept model's files lie, where derived ones may be put, and what its deltas come to (see engine/delta_kinds.py)."""

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


def _packed(source: Source, format_: str, progress: Progress) -> PackInfo:
    folder = source.packs / format_
    if (info := read_pack(folder, source.digest)) is not None:
        return info
    with file_lock(folder / "packing.lock", lambda _who: progress("waiting for another process that packs weights", 0, 1)):
        if (info := read_pack(folder, source.digest)) is not None:
            return info
        sweep_unfinished(folder / "weights.bin")
        checkpoint = merged_checkpoint(source)
        tokenizer = checkpoint_tokenizer(checkpoint, source.folder)
        tokenizer.check_fits(checkpoint.config)
        tokenizer.save(folder)
        return pack_checkpoint(checkpoint, source.digest, format_, folder, lambda done, of: progress("packing weights", done, of))


def merged_checkpoint(source: Source) -> Checkpoint:
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
