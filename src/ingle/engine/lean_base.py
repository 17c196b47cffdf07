"""Lean bases: let the matrices of a GGUF file lie on disk once, and put the file back. See home/lean.py for what lies where.

The file goes only when it was made again from what stays, and had its own SHA-256.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.core.config import to_table
from ingle.core.digest import canonical_json, digest_file
from ingle.core.errors import CheckpointError, ConfigError, HomeError, IngleError
from ingle.core.files import atomic_file, os_errors, sync_folder, write_atomic
from ingle.core.progress import Progress, silent
from ingle.core.report import Event
from ingle.engine.packs import (
    INFO,
    PackInfo,
    Source,
    check_pack,
    is_outdated,
    kept_source,
    merged_checkpoint,
    pack_folders,
    packed,
    packed_as,
    read_pack,
    source_tokenizer,
)
from ingle.home.base import read_base
from ingle.home.deltas import LOCK
from ingle.home.fetch import need_space
from ingle.home.kept import Kept, list_models
from ingle.home.kept_file import KeptFile
from ingle.home.lean import CURE, LEAN, REST, WEIGHTS, Lean, Matrix, Piece, is_lean, read_lean
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.kernels.panels import PANELS
from ingle.model.gguf import GGUF, Mapped, read_gguf, tensors_from_gguf
from ingle.model.lean_checkpoint import file_bytes, open_lean
from ingle.model.tensor import Tensor
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, open_tokenizer

_PACK = (WEIGHTS, TOKENIZER_FILE, FACTS_FILE, INFO)  # the files of a pack, the one that makes it count last
_MOST_LEFT = 0.5  # share of the file that may stay as it is: with more it is not worth it
# Of the files of a base. Windows can't delete what is read-only.
_MODE = 0o644 if os.name == "nt" else 0o444


@dataclass(frozen=True, slots=True)
class Moved:
    """The outcome of `make_lean` or `make_whole`."""

    name: str
    base: str
    freed: int  # bytes on disk; below 0 = so many more are taken
    kind: str  # `lean` or `whole`

    @property
    def event(self) -> Event:
        """The fact for the ledger."""
        return Event(self.kind, self.name, {"base": self.base, "bytes": self.freed})


def make_lean(home: Home, kept: Kept, progress: Progress = silent) -> Moved:
    """Let the file of a model's base lie on disk as its pack only; nothing is done where it does already.

    A kill loses nothing: the same call again goes on. Raises ConfigError for a base that isn't one GGUF file of blocks that lose
    nothing, CheckpointError if the file can't be made again bit for bit, HomeError.
    """
    with _at_work(home, kept) as source:
        if is_lean(source.folder):
            return Moved(kept.name, kept.base, 0, "lean")
        first, *others = read_base(home, kept.base).files
        if others or not first.name.lower().endswith(".gguf"):
            raise ConfigError("--lean", "is for models that are one GGUF file", f"{first.name} and {len(others)} more")
        lean = _laid_out(source, first, packed(source, "auto", progress), progress)
        with home.lock(LOCK), os_errors(source.folder):  # whoever deletes or copies the model does it before or after
            (source.folder / first.name).stat()
            write_atomic(source.folder / LEAN, canonical_json(to_table(lean)), mode=_MODE)
            (source.folder / first.name).unlink()
            sync_folder(source.folder)
        discard(home, source.packs / "auto")
    return Moved(kept.name, kept.base, lean.file.size - lean.parts[0].size, "lean")


def make_whole(home: Home, kept: Kept, progress: Progress = silent) -> Moved:
    """Put the file of a model's base back on disk, beside its pack; nothing is done where it lies there.

    A kill loses nothing: the same call again goes on. Raises CheckpointError if it has become another file, HomeError.
    """
    with _at_work(home, kept) as source:
        folder, lean, grown = source.folder, read_lean(source.folder), 0
        files = read_base(home, kept.base).files
        if lean is not None:
            if files != (lean.file,):
                raise HomeError(str(folder / LEAN), "must be of the base that it lies in", lean.file.name, CURE)
            need_space(folder, lean.file.size)
            with atomic_file(folder / lean.file.name, mode=_MODE) as file:
                _check(folder, lean, _parts(folder, lean, progress), file.write)
            grown = lean.file.size - lean.parts[0].size
        if (folder / LEAN).exists():
            for name in _PACK:
                _link(folder / name, source.packs / "auto" / name)
        own = {file.name for file in files}
        with home.lock(LOCK), os_errors(folder):
            for name in (LEAN, REST, *_PACK):  # the manifest first: without it the others are no base
                if name not in own:
                    (folder / name).unlink(missing_ok=True)
            sync_folder(folder)
    return Moved(kept.name, kept.base, -grown, "whole")


def file_fault(folder: Path, lean: Lean, progress: Progress = silent) -> str:
    """Make the file of a lean base again, and return why it isn't the one that came; nothing if it is."""
    try:
        _check(folder, lean, _parts(folder, lean, progress))
    except IngleError as error:
        return str(error)
    return ""


@contextmanager
def _at_work(home: Home, kept: Kept) -> Iterator[Source]:
    """Yield the source of a model's base, which nobody else changes meanwhile."""
    with home.lock(f"lean-{kept.base[:16]}"):
        yield kept_source(home, replace(kept, deltas=()))


def _laid_out(source: Source, file: KeptFile, info: PackInfo, progress: Progress) -> Lean:
    """Write what a lean base has instead of its file, and prove it. The file stays where it is, and is mapped no more."""
    gguf = read_gguf(Mapped(source.folder / file.name))
    _, tensors, _ = tensors_from_gguf(gguf)
    matrices = tuple(_matrices(gguf, tensors, info))
    pieces = tuple(_pieces(file.size, sorted((one.begin, tensors[one.name].nbytes) for one in matrices)))
    if sum(piece.size for piece in pieces) > _MOST_LEFT * file.size:
        kinds = sorted({one.kind for one in gguf.tensors.values() if len(one.shape) > 1})
        rule = "would save little: most of its numbers are not served as the file has them"
        raise ConfigError("--lean", rule, ", ".join(kinds), "Pull a file of blocks instead, for example Q4_K_M.")
    need_space(source.folder, sum(piece.size for piece in pieces))
    parts = (_write_rest(source.folder, file, pieces), *_bring(source.packs / "auto", source.folder, info))
    lean = Lean(file, pieces, matrices, parts)
    _prove(source.folder, lean, tensors, progress)
    return lean


def _matrices(gguf: GGUF, tensors: Mapping[str, Tensor], info: PackInfo) -> Iterator[Matrix]:
    """Yield the matrices whose bytes in the file can be made again from the pack: mapped as they lie there, of blocks without loss."""
    starts = sorted((one.data.ctypes.data, one.data.nbytes, one.begin) for one in gguf.tensors.values())
    for name, place in info.places.items():
        tensor = tensors[name]
        if PANELS.get(tensor.kind) != place.kind or not tensor.raw.flags.c_contiguous:
            continue
        at, size = tensor.raw.ctypes.data, tensor.nbytes
        found = [begin + at - start for start, length, begin in starts if start <= at and at + size <= start + length]
        for begin in found:
            yield Matrix(name, begin, tensor.kind, place.rows, place.columns, place.planes)


def _pieces(size: int, spans: Iterable[tuple[int, int]]) -> Iterator[Piece]:
    """Yield what is between the spans of a file."""
    at = 0
    for begin, length in (*spans, (size, 0)):
        if begin > at:
            yield Piece(at, begin - at)
        at = begin + length


def _write_rest(folder: Path, file: KeptFile, pieces: tuple[Piece, ...]) -> KeptFile:
    with atomic_file(folder / REST, mode=_MODE) as rest, (folder / file.name).open("rb") as whole:
        for piece in pieces:
            whole.seek(piece.begin)
            rest.write(whole.read(piece.size))
    return KeptFile(REST, (folder / REST).stat().st_size, digest_file(folder / REST))


def _bring(pack: Path, folder: Path, info: PackInfo) -> Iterator[KeptFile]:
    """Bring the files of a pack to the base's folder; they may lie there since an interrupted attempt."""
    check_pack(pack if (pack / INFO).exists() else folder, info)
    for name in _PACK:
        _link(pack / name, folder / name)
        yield KeptFile(name, (folder / name).stat().st_size, digest_file(folder / name))


def _link(source: Path, target: Path) -> None:
    """Let a file lie in another folder, too, without its bytes twice where the disk can do that."""
    if not source.exists():
        return
    with os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            with atomic_file(target) as file, source.open("rb") as data:
                shutil.copyfileobj(data, file)
        target.chmod(_MODE)


def _prove(folder: Path, lean: Lean, before: Mapping[str, Tensor], progress: Progress) -> None:
    """Raise CheckpointError unless the file is made again bit for bit, and read as it was."""
    _check(folder, lean, _parts(folder, lean, progress))
    _, _, after, _ = open_lean(folder, lean)
    for name in before.keys() - {one.name for one in lean.matrices}:  # numbers that were computed from the file's are still those
        if before[name].raw.tobytes() != after[name].raw.tobytes():
            raise CheckpointError(name, "must be read as before from a lean base", "", "Keep this model as it is.")


def _parts(folder: Path, lean: Lean, progress: Progress) -> Iterator[memoryview]:
    """Yield the bytes of the file that a lean base was, and tell how far it is."""
    done, label, whole = 0, f"making {lean.file.name} again, MB", -(-lean.file.size // 1_000_000)
    _, _, tensors, _ = open_lean(folder, lean)
    for part in file_bytes(folder, lean, tensors):
        progress(label, done // 1_000_000, whole)
        yield part.data
        done += len(part)
    progress(label, whole, whole)


def _check(folder: Path, lean: Lean, parts: Iterator[memoryview], write: Callable[[memoryview], object] = lambda _: None) -> None:
    """Raise CheckpointError unless the parts are the file."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
        write(part)
    if (got := hasher.hexdigest()) != lean.file.sha256:
        raise CheckpointError(f"{folder}: {lean.file.name}", f"must have SHA-256 {lean.file.sha256[:12]}…", f"{got[:12]}…", CURE)


# Packs against the files that they were made of.


def verify_packs(home: Home, progress: Progress = silent) -> Iterator[tuple[str, str]]:
    """Yield (model, fault) for every pack of a kept model that is not what was packed, or not what the model's files give.

    Packs that another version of Ingle made are never served, and passed over; so is a model whose own files are at fault. Where deltas are
    merged, matrices are only compared with their digests: another machine may round a sum differently.
    """
    checked = set[Path]()
    for kept in list_models(home, lambda *_: None):
        try:
            source = kept_source(home, kept)
        except IngleError:
            continue
        folders = [] if source.packs in checked else pack_folders(source)
        checked.add(source.packs)
        for folder in folders:
            if fault := _fault(source, folder, progress):
                yield kept.name, fault


def _fault(source: Source, folder: Path, progress: Progress) -> str:
    """Return the fault of a pack, or nothing."""
    if is_outdated(folder):
        return ""
    info = read_pack(folder, source.digest)
    if info is None:
        return f"{folder / 'pack.json'} is damaged; the weights are packed again at the next start"
    try:
        check_pack(folder, info)
    except IngleError as error:
        return str(error)
    try:
        checkpoint = merged_checkpoint(source)
        words = source_tokenizer(source, checkpoint)
    except IngleError:  # told where the base's own files are read
        return ""
    served = open_tokenizer(folder)
    if (served.facts, served.fast.to_str()) != (words.facts, words.fast.to_str()):
        return f"{folder} has another tokenizer or chat template than the model's own files"
    if info.config != checkpoint.config:
        return f"{folder} has another config than the model's own files"
    if source.merged:
        return ""
    if (lean := read_lean(folder)) is not None and (fault := file_fault(folder, lean, progress)):
        return fault
    again = packed_as(
        checkpoint, source.digest, info.format, progress=lambda done, of: progress(f"packing {source.name} to compare", done, of)
    )
    if (again.places, again.files[0]) != (info.places, info.files[0]):
        return f"{folder} has other weights than the model's own files"
    return ""
