"""Files of this machine, copied into the home."""

from collections.abc import Iterable
from pathlib import Path

from ingle.core.digest import digest_file
from ingle.core.errors import PullError
from ingle.core.progress import FetchProgress
from ingle.home.base import Base, base_digest
from ingle.home.fetch import copy_file, need_space
from ingle.home.kept_file import KeptFile
from ingle.home.source import INDEX, LocalSource, choose_files


def local_files(source: LocalSource) -> list[Path]:
    """Return the files of a local model.

    Raises PullError if they can't be read, or some are missing.
    """
    if source.path.is_file():
        return [source.path]
    try:
        names = sorted(path.name for path in source.path.iterdir() if path.is_file())
        chosen = choose_files(str(source.path), names, (source.path / INDEX).read_bytes)
    except OSError as error:
        raise PullError(str(source.path), "must be readable", error.strerror) from error
    return [source.path / name for name in chosen]


def find_same(paths: list[Path], bases: Iterable[Base], progress: FetchProgress) -> Base | None:
    """Return the base with exactly these files, or None. Reads contents only if names and sizes match a base."""
    sizes = {path.name: path.stat().st_size for path in paths}
    likely = [base for base in bases if {file.name: file.size for file in base.files} == sizes]
    if not likely:
        return None
    files = []
    for path in paths:
        progress(path.name, 0, sizes[path.name])
        files.append(KeptFile(path.name, sizes[path.name], digest_file(path)))
        progress(path.name, sizes[path.name], sizes[path.name])
    digest = base_digest(tuple(files))
    return next((base for base in likely if base.digest == digest), None)


def bring_from_local(paths: list[Path], folder: Path, progress: FetchProgress) -> tuple[KeptFile, ...]:
    """Copy the files into `folder`.

    Raises PullError if one can't be read or there is no room, HomeError if the disk refuses.
    """
    need_space(folder, sum(path.stat().st_size for path in paths))
    files = []
    for path in paths:
        sha256 = copy_file(path, folder / path.name, progress)
        files.append(KeptFile(path.name, (folder / path.name).stat().st_size, sha256))
    return tuple(files)
