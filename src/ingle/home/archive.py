"""The archive of a backup: an uncompressed tar, whose first member is a manifest of all the others.

manifest.json     BackupManifest: the size and SHA-256 of every file
home/PATH         the files themselves, in the manifest's order

A reader trusts nothing in it: a member that is not a plain file, that stands elsewhere than in the manifest, or whose bytes are others ends
the reading, and a path that leads anywhere but to what a home keeps is refused before anything is written.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO

from ingle.core.config import from_table, to_table
from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import os_errors
from ingle.core.progress import FetchProgress

MANIFEST, FOLDER, FORMAT = "manifest.json", "home/", "ingle-backup-1"
DATABASE = "ingle.db"
# Parts of a home that are kept for good, by their names. Restored in this order: nothing is served before `models` is there.
KEPT = (
    "bases",
    "deltas",
    "parts",
    "labels",
    "keys",
    "config.toml",
    "policy.toml",
    "guards",
    "federated",
    "scaling",
    "history",
    "learner.json",
    "forgetting",
    DATABASE,
    "models",
)
# Parts that Ingle makes again where they are missing: no part of a backup, and refused in one. Above all `cache`: it holds programs.
MADE_AGAIN = ("packs", "cache", "states", "staging", "tuning", "locks")
_MOST_MANIFEST_BYTES = 64 << 20
_BLOCK_BYTES = 4 << 20
_UNKNOWN = "0" * 64
_CURE = "It is damaged, or `ingle home backup` did not make it; use another one."


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file of a backup."""

    path: str  # from the home's folder, with `/` between its parts
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """The contents of a backup."""

    format: str
    made_at: str  # UTC, ISO 8601
    files: tuple[ArchivedFile, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def has_database(self) -> bool:
        """Whether facts and conversations are in it; otherwise a database server holds them."""
        return any(file.path == DATABASE for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of everything in the backup."""
        return digest_bytes(_encoded(self))


def describe_folder(root: Path, made_at: str) -> BackupManifest:
    """Return the manifest of a folder whose files are still to be digested. Raises HomeError for a name that no backup can hold."""
    with os_errors(root):
        found = sorted(path for path in root.rglob("*") if path.is_file())
        files = tuple(ArchivedFile(path.relative_to(root).as_posix(), path.stat().st_size, _UNKNOWN) for path in found)
    for file in files:
        if problem := _path_problem(file.path):
            raise HomeError(str(root / file.path), problem, "", "Give that file another name, or move it away.")
    return BackupManifest(FORMAT, made_at, files)


def write_archive(file: BinaryIO, root: Path, manifest: BackupManifest, progress: FetchProgress) -> BackupManifest:
    """Write an archive of the files that the manifest names, and return the manifest with their digests. Raises HomeError."""
    at = int(datetime.fromisoformat(manifest.made_at).timestamp())
    files, done = list[ArchivedFile](), 0
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        first = _encoded(manifest)
        tar.addfile(_member(MANIFEST, len(first), at), io.BytesIO(first))
        for one in manifest.files:
            with ExitStack() as opened:
                with os_errors(root / one.path):
                    source = opened.enter_context((root / one.path).open("rb"))
                reader = _Digesting(source, _beyond(progress, "writing", done, manifest.nbytes))
                tar.addfile(_member(FOLDER + one.path, one.size, at), reader)  # type: ignore[arg-type]
            done += one.size
            files.append(replace(one, sha256=reader.hasher.hexdigest()))
    whole = replace(manifest, files=tuple(files))
    # The manifest goes first, so that a reader knows what comes; its digests come last. They are as long as those that hold their place.
    file.seek(tarfile.BLOCKSIZE)
    assert len(_encoded(whole)) == len(first)
    file.write(_encoded(whole))
    return whole


def read_manifest(file: BinaryIO, name: str) -> BackupManifest:
    """Return the manifest at the beginning of an archive; nothing behind it is read. Raises HomeError as `read_archive` does."""
    with _fit(name), tarfile.open(fileobj=file, mode="r:") as tar:
        return _read_manifest(tar)


def read_archive(file: BinaryIO, name: str, into: Path | None, progress: FetchProgress) -> BackupManifest:
    """Read an archive, every byte checked, and write its files below `into` (None = nowhere). `name` is for messages.

    Raises HomeError at the first thing that is not as the manifest says, or if the disk refuses.
    """
    with _fit(name), tarfile.open(fileobj=file, mode="r:") as tar:
        manifest, done = _read_manifest(tar), 0
        for one in manifest.files:
            _read_file(tar, one, into, _beyond(progress, "checking", done, manifest.nbytes))
            done += one.size
        _expect_end(tar)
    return manifest


@contextmanager
def _fit(name: str) -> Iterator[None]:
    """Turn whatever is wrong with an archive into a HomeError."""
    try:
        yield
    except (_Unfit, tarfile.TarError, ValueError, EOFError, TypeError, RecursionError, OverflowError, ConfigError) as error:
        raise HomeError(name, "must be a whole backup of Ingle", error, _CURE) from error


def _read_file(tar: tarfile.TarFile, one: ArchivedFile, into: Path | None, progress: Callable[[int], None]) -> None:
    """Read one file, checked, and write it below `into`, for its owner alone."""
    with _expected(tar, FOLDER + one.path, one.size) as source, ExitStack() as opened:
        target: BinaryIO | None = None
        if into is not None:
            opened.enter_context(os_errors(into / one.path))
            target = opened.enter_context(_created(into / one.path))
        reader = _Digesting(source, progress)
        while block := reader.read(_BLOCK_BYTES):
            if target is not None:
                target.write(block)
        if target is not None:
            target.flush()
            os.fsync(target.fileno())
    if (reader.done, reader.hasher.hexdigest()) != (one.size, one.sha256):
        raise _Unfit(f"{one.path} is not as it was kept")


def _beyond(progress: FetchProgress, label: str, done: int, total: int) -> Callable[[int], None]:
    return lambda nbytes: progress(label, done + nbytes, total)


class _Unfit(Exception):
    """Something in an archive is not as it must be."""


class _Digesting:
    """A file that is digested while it is read."""

    def __init__(self, source: IO[bytes], progress: Callable[[int], None]) -> None:
        self.hasher = hashlib.sha256()
        self.done = 0
        self._source, self._progress = source, progress

    def read(self, nbytes: int) -> bytes:
        """Read up to so many bytes."""
        if data := self._source.read(nbytes):
            self.hasher.update(data)
            self.done += len(data)
            self._progress(self.done)
        return data


def _created(path: Path) -> BinaryIO:
    """Make a file for its owner alone. One that is there already is not written: on some disks two names are one file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb")


def _member(name: str, size: int, at: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, at, 0o600
    return member


def _expected(tar: tarfile.TarFile, name: str, most_bytes: int) -> IO[bytes]:
    """Return the contents of the next member, which must be a plain file of this name."""
    member = tar.next()
    if member is None:
        raise _Unfit(f"{name!r} is missing")
    if member.name != name:
        raise _Unfit(f"{member.name!r} stands where {name!r} should")
    if member.type != tarfile.REGTYPE or member.sparse is not None:
        raise _Unfit(f"{name!r} is no plain file")
    if not 0 <= member.size <= most_bytes:
        raise _Unfit(f"{name!r} has {member.size} bytes")
    contents = tar.extractfile(member)
    assert contents is not None, "a plain file has contents"
    return contents


def _expect_end(tar: tarfile.TarFile) -> None:
    if (extra := tar.next()) is not None:
        raise _Unfit(f"{extra.name!r} is not in its manifest")


def _read_manifest(tar: tarfile.TarFile) -> BackupManifest:
    with _expected(tar, MANIFEST, _MOST_MANIFEST_BYTES) as contents:
        manifest = from_table(BackupManifest, json.loads(contents.read()))
    if manifest.format != FORMAT:
        raise _Unfit(f"it is in format {manifest.format!r}, not {FORMAT!r}")
    datetime.fromisoformat(manifest.made_at)
    if len({file.path for file in manifest.files}) < len(manifest.files):
        raise _Unfit("a file is in it twice")
    for file in manifest.files:
        if problem := _path_problem(file.path):
            raise _Unfit(f"{file.path!r} {problem}")
    return manifest


def _path_problem(path: str) -> str:
    """Return why a backup must not hold this path; "" if it may. The same on all systems, so that a backup fits on each."""
    parts = path.split("/")
    if parts[0] not in KEPT:
        return "must be something that a home keeps"
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or ":" in path or not path.isprintable():
        return "must be a plain path"
    return ""


def _encoded(manifest: BackupManifest) -> bytes:
    return canonical_json(to_table(manifest))
