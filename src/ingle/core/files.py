"""Write files atomically: a reader sees the old content or the new, never half of either."""

import errno
import glob
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from ingle.core.errors import ConfigError, HomeError


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


# How to install what an extra of Ingle needs into this environment: the exact command and its download size.
# The requirements are those that the installed package states. The command names them and not the package itself: no index need know it.


# Measured for Python 3.11 in November 2026, on top of Ingle's own requirements.
_FETCHES = {"measure": "65 MB", "plot": "7 MB", "postgres": "4 MB", "timestamp": "3 MB"}
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def requirements() -> dict[str, dict[str, str]]:
    """Return each extra's requirements by package name. Ingle's own stand under ""."""
    needs: dict[str, dict[str, str]] = {"": {}}
    for line in metadata.requires("ingle") or ():
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name, extra = _NAME.match(requirement), _EXTRA.search(marker)
        if name:
            needs.setdefault(extra[1] if extra else "", {})[name[0]] = requirement
    return needs


def installed(name: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def not_installed(module: str) -> ConfigError | None:
    """Return what to say where a module can't be imported; None if no extra brings it."""
    name = module.partition(".")[0]
    bring = {extra: needs for extra, needs in requirements().items() if name.replace("_", "-") in needs}
    if not bring:
        return None
    smallest = min(bring, key=lambda extra: len(bring[extra]))
    return ConfigError(name, f"This needs {name}, which is not installed", "", how_to_install(smallest))


def install_command(extra: str) -> str:
    """Return the shell command that installs the missing packages of an extra ("" = Ingle itself) into this environment."""
    needs = requirements().get(extra, {})
    lacking = [requirement for name, requirement in needs.items() if not installed(name)] or list(needs.values())
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return _quoted("uv", "pip", "install", "--python", sys.executable, *lacking)
    return _quoted(sys.executable, "-m", "pip", "install", *lacking)


def how_to_install(extra: str) -> str:
    """Return a sentence or two: the command and its download size."""
    return f"Run: {install_command(extra)} ({fetches(extra)})"


def need_learning() -> None:
    """Raises ConfigError if the extra that trains is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("PyTorch", "Training needs PyTorch, which is not installed", "", how_to_install("learn"))


def fetches(extra: str, system: str = sys.platform) -> str:
    """Return how much an installation downloads, in words."""
    if extra != "learn":
        return f"fetches about {_FETCHES[extra]}" if extra in _FETCHES else "fetches what is missing"
    if system.startswith("linux"):
        return "fetches about 2.7 GB, because PyTorch's usual build for Linux brings CUDA; the CPU build on pytorch.org, 160 MB, is enough"
    return "fetches about 130 MB"


def _quoted(*words: str) -> str:
    if os.name == "nt":
        return " ".join(f'"{word}"' if set(word) & set(' <>=&|^[]"') else word for word in words)
    return shlex.join(words)
