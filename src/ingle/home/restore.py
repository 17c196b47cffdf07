"""Restoring a backup: into an empty home only, every byte checked, and into place when all of it is verified."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import HomeError
from ingle.core.files import os_errors, sync_folder
from ingle.core.progress import FetchProgress
from ingle.home.archive import KEPT, BackupManifest, read_archive, read_manifest
from ingle.home.backup import BACKUP_LOCK, Verify, check_home
from ingle.home.database import is_in_file
from ingle.home.kept import list_kept
from ingle.home.place import Home
from ingle.home.staging import staging

_CURE = "The backup is of a damaged home, or somebody changed it; use another one."
_MAY_BE_THERE = ("cache", "locks", "staging")  # files of a home that was only looked at, or that an earlier attempt left


@dataclass(frozen=True, slots=True)
class Restored:
    """A home that came back."""

    manifest: BackupManifest
    facts: int | None  # none = its facts are in a database elsewhere that can't be asked now
    models: tuple[str, ...]


def restore(
    home: Home, path: Path, verify: Verify, progress: FetchProgress, waiting: Callable[[str], None] = lambda _: None, digest: str = ""
) -> Restored:
    """Bring the backup in the file `path` back into a home that is empty or missing. `digest`: the one that the backup must have.

    A failure or Ctrl-C leaves the home as empty as it was; what a kill left is taken up by the same call again. Raises HomeError for a home
    that holds anything else, a backup that is not whole, or that is another, LedgerError for a ledger that is not.
    """
    with os_errors(path):
        file = path.open("rb")
    with file:
        manifest = read_manifest(file, str(path))
        if digest and manifest.digest != digest.lower():
            raise HomeError(str(path), f"must have the digest {digest}", manifest.digest, "It is another backup, or it was changed.")
        _refuse_used(home, manifest)
        home.create()
        with home.lock(BACKUP_LOCK, waiting), staging(home) as folder:
            copy = Home(folder / "home").create()
            file.seek(0)
            if read_archive(file, str(path), copy.root, progress) != manifest:
                raise HomeError(str(path), "was changed while it was read", "", "Try again when nobody writes to it.")
            facts = _check(home, copy, manifest, verify, progress)
            models = tuple(kept.name for kept in list_kept(copy))
            _refuse_used(home, manifest)
            _into_place(home, copy)
    return Restored(manifest, facts, models)


def _check(home: Home, copy: Home, manifest: BackupManifest, verify: Verify, progress: FetchProgress) -> int | None:
    inside = manifest.has_database
    if inside and home.other_database:
        cure = "Unset it to use the database of the backup."
        raise HomeError("INGLE_DATABASE_URL", "names another database, and the backup brings its own", "", cure)
    if not inside and is_in_file(home.database_url):
        check_home(copy, "", lambda _url, _keys: 0, progress, _CURE)
        return None
    return check_home(copy, copy.database_url if inside else home.database_url, verify, progress, _CURE)


def _refuse_used(home: Home, manifest: BackupManifest) -> None:
    """Raise HomeError if a home holds anything but what the backup brings, byte by byte: a kill may have left that."""
    brings = {file.path: (file.size, file.sha256) for file in manifest.files}
    with os_errors(home.root):
        for top in sorted(home.root.iterdir()) if home.root.is_dir() else ():
            for path in () if top.name in _MAY_BE_THERE else (top, *top.rglob("*")):
                if path.is_symlink() or (path.is_file() and not _is_brought(path, brings.get(path.relative_to(home.root).as_posix()))):
                    cure = "Set INGLE_HOME to another folder, or move what is in this one away first."
                    raise HomeError(f"The home {home.root}", "must be empty to restore into", f"one that holds {top.name}", cure)


def _is_brought(path: Path, brought: tuple[int, str] | None) -> bool:
    if path.parent.name == "keys" and path.suffix == ".lock":
        return True
    return brought is not None and path.stat().st_size == brought[0] and digest_file(path) == brought[1]


def _into_place(home: Home, copy: Home) -> None:
    """Move everything to the home; if anything fails on the way, take back what was moved."""
    names = [name for name in KEPT if (copy.root / name).exists()]
    for name in names:
        _prepare(copy.root / name)
    moved = list[Path]()
    try:
        for name in names:
            target = home.root / name
            with os_errors(target):
                if target.is_dir():
                    shutil.rmtree(target)  # empty, or what a kill left of this very backup
                moved.append(target)
                (copy.root / name).replace(target)
        with os_errors(home.root):
            sync_folder(home.root)
        home.create()
    except BaseException:
        for target in moved:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise


def _prepare(path: Path) -> None:
    """Make the folders of a restored file or folder survive a power cut, and let nobody write to bases, as when they were pulled."""
    with os_errors(path):
        for one in (path, *path.rglob("*")) if path.is_dir() else ():
            if one.is_dir():
                sync_folder(one)
            elif path.name == "bases" and os.name != "nt":
                one.chmod(0o444)
