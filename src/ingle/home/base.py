"""Bases: a model's original files, stored under the digest of their contents and never written again."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ingle.core.config import from_table, to_table
from ingle.core.digest import canonical_json, digest_file, digest_json
from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.core.progress import FetchProgress, silent
from ingle.home.kept_file import KeptFile
from ingle.home.lean import LEAN, read_lean
from ingle.home.place import Home

MANIFEST = "base.json"
# Files that a training may leave beside the model's own; they are no part of the base and its digest.
REPORT, CURVES = "report.json", ("loss.csv", "loss.svg")


@dataclass(frozen=True, slots=True)
class Base:
    """The manifest of a base."""

    digest: str  # digest of the sorted (file name, SHA-256) pairs: the same files give the same base, wherever they came from
    source: str  # where it came from first: `catalogue:NAME`, `hub:ORG/NAME`, `file:PATH`, `merge:MODEL`, or `train:NAME` from scratch
    revision: str  # commit of the hub, version of the package, or digest of its ingredients; empty for local files
    files: tuple[KeptFile, ...]  # sorted by name
    pulled_at: str  # UTC, ISO 8601
    licence: str = ""  # SPDX name, where the source states one

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class FileFault:
    """A problem with one file of a base."""

    file: str
    what: Literal["missing", "truncated", "altered", "added"]
    expected: str
    got: str


def base_digest(files: tuple[KeptFile, ...]) -> str:
    """Return the digest that identifies these files."""
    return digest_json(sorted((file.name, file.sha256) for file in files))


def describe_base(files: tuple[KeptFile, ...], source: str, revision: str, licence: str) -> Base:
    """Return the manifest of new files."""
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return Base(base_digest(ordered), source, revision, ordered, datetime.now(UTC).isoformat(timespec="seconds"), licence)


def write_base(folder: Path, base: Base) -> None:
    """Write the manifest beside the files."""
    write_atomic(folder / MANIFEST, canonical_json(to_table(base)))


def read_base(home: Home, digest: str) -> Base:
    """Return the manifest of a kept base.

    Raises HomeError if it is missing or damaged.
    """
    path = home.base_folder(digest) / MANIFEST
    cure = "Pull the model again; `ingle rm` first if it says that it is kept."
    try:
        with os_errors(path):
            table = json.loads(path.read_bytes())
        base = from_table(Base, table)
    except HomeError as error:
        raise HomeError(error.field, error.rule, error.got, cure) from error
    except (ValueError, TypeError, ConfigError) as error:
        raise HomeError(str(path), "must be a base's manifest", error, cure) from error
    if base.digest != digest or base_digest(base.files) != digest:
        raise HomeError(str(path), f"must describe base {digest[:12]}", base.digest[:12], cure)
    return base


def base_report(home: Home, digest: str) -> dict[str, Any] | None:
    """Return the report of a base that was made here, or None. Raises HomeError if the report can't be read."""
    path = home.base_folder(digest) / REPORT
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        table: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise HomeError(str(path), "must be a report", error, "Delete it; the model itself is not touched.") from error
    return table


def list_bases(home: Home) -> list[Base]:
    """Return every base with a readable manifest, newest last. A damaged one is reported when a model asks for it."""
    bases = []
    for path in home.bases.glob(f"*/{MANIFEST}"):
        try:
            bases.append(read_base(home, path.parent.name))
        except HomeError:
            continue
    return sorted(bases, key=lambda base: (base.pulled_at, base.digest))


def stored_files(home: Home, base: Base) -> tuple[KeptFile, ...]:
    """Return the files that lie on disk for a base: its own, or what a lean base has instead. Raises HomeError as `read_lean` does."""
    lean = read_lean(home.base_folder(base.digest))
    return base.files if lean is None or base.files != (lean.file,) else lean.parts


def is_whole(home: Home, base: Base) -> bool:
    """Return whether every file is there with its size; reads no contents."""
    folder = home.base_folder(base.digest)
    try:
        return all((folder / file.name).stat().st_size == file.size for file in stored_files(home, base))
    except (OSError, HomeError):
        return False


def verify_base(home: Home, digest: str, progress: FetchProgress = silent) -> list[FileFault]:
    """Read every byte of a base again and return the files that have changed; empty = all well. Of a lean base, what it has instead of
    its file is read; `engine.lean_base.fault` makes the file again.

    Raises HomeError if the manifest itself is missing or damaged.
    """
    base, folder = read_base(home, digest), home.base_folder(digest)
    faults, files = [], stored_files(home, base)
    for file in files:
        path = folder / file.name
        if not path.is_file():
            faults.append(FileFault(file.name, "missing", f"{file.size} bytes", "nothing"))
            continue
        if (size := path.stat().st_size) != file.size:
            faults.append(FileFault(file.name, "truncated" if size < file.size else "altered", f"{file.size} bytes", f"{size} bytes"))
            continue
        with os_errors(path):
            got = _digest_with_progress(path, file, progress)
        if got != file.sha256:
            faults.append(FileFault(file.name, "altered", file.sha256, got))
    expected = {file.name for file in files} | {MANIFEST, REPORT, *CURVES} | ({LEAN} if files != base.files else set())
    added = sorted(path.name for path in folder.iterdir() if path.name not in expected)
    return faults + [FileFault(name, "added", "nothing", "a file that was not there") for name in added]


def _digest_with_progress(path: Path, file: KeptFile, progress: FetchProgress) -> str:
    done = 0

    def step(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(file.name, done, file.size)

    return digest_file(path, step)
