"""Staging: a model is built in its own folder and becomes visible by one rename, or not at all."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors
from ingle.home.place import Home


@contextmanager
def staging(home: Home) -> Iterator[Path]:
    """Yield an empty folder to build in; it is deleted at the end of the block.

    A lock on its name tells it apart from the folder of a dead process; such folders go first.
    """
    sweep_staging(home)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    folder = home.staging / name
    try:
        with home.lock(f"staging-{name}"):
            try:
                with os_errors(folder):
                    folder.mkdir(mode=0o700, parents=True)
                yield folder
            finally:
                _delete(folder)
    finally:
        _drop_lock(home, name)


def sweep_staging(home: Home) -> list[str]:
    """Delete the staging folders of dead processes. Returns their names."""
    swept = []
    for folder in sorted(home.staging.iterdir()) if home.staging.is_dir() else ():
        try:
            with home.lock(f"staging-{folder.name}", timeout_s=0):
                _delete(folder)
        except HomeError:
            continue  # somebody is at work in it
        _drop_lock(home, folder.name)
        swept.append(folder.name)
    return swept


def discard(home: Home, folder: Path) -> None:
    """Delete a folder, if there is one: a rename hides it first, so that nobody finds half of it."""
    if not folder.is_dir():
        return
    with staging(home) as trash, os_errors(folder), suppress(FileNotFoundError):  # somebody else has just taken it away
        folder.replace(trash / folder.name)


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder; 0 if there is none."""
    with os_errors(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def sweep_downloads(home: Home, days: float = 30) -> list[str]:
    """Delete unfinished downloads that were idle for so many days. Returns their names."""
    old = [path for path in sorted(home.downloads.iterdir()) if idle_days(path) > days] if home.downloads.is_dir() else []
    for path in old:
        with os_errors(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return [path.name for path in old]


def idle_days(path: Path) -> float:
    """Return the days since a file, or anything in a folder, was written; 0 if it is being removed."""
    try:
        return (time.time() - max(part.stat().st_mtime for part in (path, *path.rglob("*")))) / 86400
    except OSError:
        return 0.0


def _drop_lock(home: Home, name: str) -> None:
    """Delete a lock's file: the name is never used again, so nobody can be waiting for it. One that stays does no harm."""
    with suppress(OSError):
        (home.root / "locks" / f"staging-{name}.lock").unlink(missing_ok=True)


def _delete(folder: Path) -> None:
    if folder.is_dir():
        with os_errors(folder):
            shutil.rmtree(folder)
