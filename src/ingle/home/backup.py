"""Backups: everything that a home keeps, as it is at one moment while others go on using it, in one archive that is read back.

First a second home is made in staging, of hard links where files never change, of copies where they do, and of a snapshot of the database.
Its parts fit together by the order in which they are taken: the ledger's head before the rows (an older head is valid, a newer one would
speak of a loss), deltas before the rows that name them, and nothing is added to or removed from what is kept meanwhile. It is verified as
any home is, then archived, and the archive is read back before it gets its name.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingle.core.errors import ConfigError, HomeError
from ingle.core.files import atomic_file, os_errors, sweep_unfinished, write_atomic
from ingle.core.progress import FetchProgress
from ingle.home.archive import KEPT, MADE_AGAIN, BackupManifest, describe_folder, read_archive, write_archive
from ingle.home.base import verify_base
from ingle.home.database import is_in_file, snapshot
from ingle.home.deltas import LOCK, verify_delta
from ingle.home.kept import list_kept
from ingle.home.parts import list_parts
from ingle.home.place import Home
from ingle.home.staging import staging

BACKUP_LOCK = "backup"
_CURE = "`ingle verify --models` says what is damaged; mend it or `ingle rm` it first."
_HEAD, _TRIES = "ledger.head", 5

# Verifies the ledger in the database at this URL with this folder of keys, and returns the number of its facts. Raises LedgerError.
Verify = Callable[[str, Path], int]


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A finished backup."""

    path: Path
    manifest: BackupManifest
    facts: int
    models: tuple[str, ...]
    left_out: tuple[str, ...]  # files and folders in the home that Ingle doesn't know


def back_up(
    home: Home, path: Path, verify: Verify, progress: FetchProgress, waiting: Callable[[str], None] = lambda _: None,
    locks: Sequence[str] = (), replace: bool = False,
) -> BackedUp:  # fmt: skip
    """Write a backup of the home to the file `path`, for its owner alone, and return it once every byte was read back.

    `locks`: more locks of the home to hold while its parts are taken. A failure or Ctrl-C leaves nothing. Raises ConfigError for a path
    that is taken or lies in the home, HomeError for a home that is missing, damaged or can't be read, LedgerError.
    """
    if not home.root.is_dir():
        raise HomeError("home", f"There is no home at {home.root}", "", "Set INGLE_HOME to the folder of the home to back up.")
    if path.resolve().is_relative_to(home.root.resolve()):
        raise ConfigError("FILE", "must lie outside of the home that it is a backup of", path, "Best is another disk.")
    if path.exists() and not replace:
        raise ConfigError("FILE", f"There is a file {path} already", "", "Choose another name, or replace it with --force.")
    with home.lock(BACKUP_LOCK, waiting), staging(home) as folder:
        sweep_unfinished(path)
        copy, made_at = Home(folder / "home").create(), datetime.now(UTC).isoformat(timespec="seconds")
        inside = is_in_file(home.database_url)
        with ExitStack() as held:
            for name in (*locks, LOCK):
                held.enter_context(home.lock(name, waiting))
            _take(home, copy, inside, progress)
        facts = check_home(copy, copy.database_url if inside else home.database_url, verify, progress, _CURE)
        manifest = describe_folder(copy.root, made_at)
        with atomic_file(path, mode=0o600) as file:
            manifest = write_archive(file, copy.root, manifest, progress)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "linux":  # what is read back comes from the disk, and not from memory
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            if read_archive(file, str(path), None, progress) != manifest:
                raise HomeError(str(path), "does not hold what was written", "", "Its disk may be damaged; use another one.")
        models = tuple(kept.name for kept in list_kept(copy))
    unknown = sorted(one.name for one in home.root.iterdir() if not _is_known(one.name))
    return BackedUp(path, manifest, facts, models, tuple(unknown))


def check_home(home: Home, database_url: str, verify: Verify, progress: FetchProgress, cure: str) -> int:
    """Verify everything in a home that nobody else uses, and return the number of its facts. Raises HomeError, LedgerError."""
    if found := list(problems(home, progress)):
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        raise HomeError("home", "must be whole", found[0] + more, cure)
    return verify(database_url, home.keys)


def problems(home: Home, progress: FetchProgress) -> Iterator[str]:
    """Yield what is wrong with the files of models and deltas, every byte read."""
    damaged = list[str]()
    models = list_kept(home, lambda name, _error: damaged.append(f"the file of model {name} can't be read"))
    yield from damaged
    bases = {part.base: f"part {part.name}" for part in list_parts(home)} | {kept.base: f"model {kept.name}" for kept in models}
    for base, name in bases.items():
        try:
            yield from (f"{fault.file} of {name} is {fault.what}" for fault in verify_base(home, base, progress))
        except HomeError:
            yield f"the list of files of {name} can't be read"
    there = {folder.name for folder in home.deltas.iterdir()}
    for digest in sorted(there | {digest for kept in models for digest in kept.deltas}):
        if verify_delta(home, digest):
            yield f"delta {digest[:12]} is not as it was kept"


def _take(home: Home, copy: Home, inside: bool, progress: FetchProgress) -> None:
    """Copy everything kept, while nothing is added to it or removed."""
    for _ in range(_TRIES):
        keys = _keys(home)
        for name in KEPT:
            if (home.root / name).exists() and name not in (home.database_file.name, home.keys.name):
                _take_one(
                    home.root / name,
                    copy.root / name,
                    named={kept.base for kept in list_kept(home)} | {part.base for part in list_parts(home)},
                )
        copy.database_file.unlink(missing_ok=True)
        if inside:
            snapshot(home.database_url, copy.database_file, lambda done, total: progress("database", done, total))
        # A key that is made or changed meanwhile may have signed rows of the snapshot.
        if _without_head(_keys(home)) == _without_head(keys):
            for name, data in keys.items():
                write_atomic(copy.keys / name, data, mode=0o600)
            return
    raise HomeError(str(home.keys), "changes all the time", "", "Try again when no other command makes keys.")


_PASSING = {"scaling": ("work", "progress.json")}  # parts that change and go while a sweep runs; it makes them again


def _take_one(source: Path, target: Path, named: set[str]) -> None:
    """Copy a file or folder of the home. Bases and deltas are never written again, so a second name for them will do."""
    shutil.rmtree(target, ignore_errors=True)
    with os_errors(source):
        if source.is_file():
            shutil.copyfile(source, target)
        elif source.name in ("bases", "deltas"):
            target.mkdir()
            for folder in source.iterdir():
                if folder.is_dir() and (source.name == "deltas" or folder.name in named):
                    _link_folder(folder, target / folder.name)
        else:
            passing = shutil.ignore_patterns(".*", *_PASSING.get(source.name, ()))
            shutil.copytree(source, target, ignore=passing, copy_function=shutil.copyfile)


def _link_folder(source: Path, target: Path) -> None:
    try:
        target.mkdir()
        for path in source.iterdir():
            try:
                os.link(path, target / path.name)
            except FileNotFoundError:
                raise
            except OSError:  # another disk, or one without hard links
                (target / path.name).symlink_to(path.resolve())
    except FileNotFoundError:  # a lesson that is just being taken back: it goes as a whole
        shutil.rmtree(target)


def _keys(home: Home) -> dict[str, bytes]:
    found = dict[str, bytes]()
    with os_errors(home.keys):
        for path in home.keys.iterdir() if home.keys.is_dir() else ():
            if path.suffix not in (".lock", ".part"):
                with suppress(FileNotFoundError):
                    found[path.name] = path.read_bytes()
    return found


def _without_head(keys: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in keys.items() if name != _HEAD}


def _is_known(name: str) -> bool:
    return name in KEPT or name in MADE_AGAIN or name.startswith((".", "ingle.db-"))
