"""Write files atomically: a reader sees the old content or the new, never half of either."""

import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ingle.core.errors import HomeError


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends without an error: temporary name, fsync, rename.

    What was written can be read back through it. Raises HomeError when the disk is full or the folder can't be written; `path` is then as
    it was.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os_errors(path), os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with os_errors(path):
            temporary.chmod(mode)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the content of `path` with `data`, whole or not at all."""
    with atomic_file(path, mode) as file:
        file.write(data)


def sweep_unfinished(path: Path) -> None:
    """Remove unfinished files that killed writers of `path` left beside it. Call it only when nobody is writing `path`."""
    with os_errors(path):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            left.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut, whoever wrote it. Raises HomeError."""
    with os_errors(path), path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can. Raises HomeError."""
    if os.name == "nt":  # Windows can't open a folder; NTFS journals the rename itself
        return
    with os_errors(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an operating system error about `path` into a HomeError with a cure."""
    try:
        yield
    except OSError as error:
        cures = {
            errno.ENOSPC: "Free some disk space and try again; nothing already kept was touched.",
            errno.EDQUOT: "Your disk quota is used up; free some space and try again.",
            errno.EACCES: "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
            errno.EPERM: "Give yourself write permission, or set INGLE_HOME to a folder of yours.",
            errno.EROFS: "The file system is read-only; set INGLE_HOME to a folder that can be written.",
            errno.ENOTDIR: "Part of this path is a file; set INGLE_HOME to a folder of yours.",
            errno.EEXIST: "A file lies where a folder should be; set INGLE_HOME to a folder of yours.",
        }
        reason = error.strerror or type(error).__name__
        raise HomeError(str(path), "must be readable and writable", reason, cures.get(error.errno or 0, "")) from error
