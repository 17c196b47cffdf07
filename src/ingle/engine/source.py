"""A kept model's weights for serving: its files, its deltas' roles, and packs of both.

Mergeable deltas are merged in float32 into the pack; the base's files are never written. A merged matrix has no 4-bit blocks that could be
kept without loss, so the format `auto` packs it in 8 bits, as it does with floating-point weights. Other matrices keep their blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from ingle.core.delta import Candidate, Delta
from ingle.core.files import sweep_unfinished
from ingle.core.process import file_lock
from ingle.engine.composite_sight import sight_kernels
from ingle.engine.delta_kinds import Change, merged, parted
from ingle.engine.packing import INFO, PackInfo, cache_dtype, pack_checkpoint, read_pack, unreached
from ingle.home.deltas import ABILITIES, delta_tensors, fitting_bases, get_delta, manifest_of, stack_digest
from ingle.home.kept import Kept
from ingle.home.lean import WEIGHTS, is_lean
from ingle.home.place import Home
from ingle.kernels.jit import build, needed
from ingle.model.checkpoint import Checkpoint, open_checkpoint
from ingle.model.text_encoder import encoder_kernels
from ingle.model.tokenizer import Tokenizer
from ingle.model.tokenizer_hf import open_tokenizer

Progress = Callable[[str, int, int], None]
"""Gets the present work, how much of it is done, and of how much."""


def silent(_what: str, _done: int, _all: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Source:
    """A kept model's files, the place for its packs, and the roles of its deltas (see engine/delta_kinds.py)."""

    name: str
    folder: Path
    """The original files, never written."""
    digest: str
    """Digest of the base and the deltas that are merged into its weights."""
    packs: Path
    """Folder of these weights' packs; each format has its own below."""
    home: Home | None = None
    """The home of the deltas; None = there are none."""
    merged: tuple[Delta, ...] = ()
    """Deltas that are merged into the weights, in order."""
    beside: tuple[Delta, ...] = ()
    """Deltas after these that stay beside the weights; models that differ only in them share a backend."""
    virtual: Delta | None = None
    """The delta of virtual tokens before every text."""
    media: tuple[Delta, ...] = ()
    """Deltas that act on pictures only."""
    given: Mapping[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=lambda: MappingProxyType({}))
    """Tensors of deltas that no home holds yet, by the delta's digest."""

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
    """Return the folders of all packs of a source."""
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
        from ingle.model.tokenizer_gguf import tokenizer_from_gguf

        return tokenizer_from_gguf(checkpoint.metadata)
    return open_tokenizer(folder)
