"""A lock between processes, held by an open file: it is free again when its process dies."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors

_POLL_S = 0.05
_WINDOWS_OFFSET = 1 << 30  # msvcrt locks bytes against reading too, so the locked byte lies behind the holder's name


@contextmanager
def file_lock(path: Path, waiting: Callable[[str], None] = lambda _: None, timeout_s: float | None = None) -> Iterator[None]:
    """Hold `path` against every other process and thread, and free it at the end of the block.

    If the lock is taken, `waiting` hears once who holds it. The file stays: deleting it would let two others in.
    Raises HomeError after `timeout_s` (None = waits for ever, 0 = doesn't wait), or when the file can't be made.
    """
    with os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait(handle, path, waiting, timeout_s)
        _sign(handle)
        try:
            yield
        finally:
            _release(handle)
    finally:
        os.close(handle)


def _wait(handle: int, path: Path, waiting: Callable[[str], None], timeout_s: float | None) -> None:
    began = time.monotonic()
    announced = False
    while not _try(handle):
        holder = _holder(handle)
        if timeout_s is not None and time.monotonic() - began >= timeout_s:
            raise HomeError(path.name, "is in use", holder, "Wait for that process to end, then try again.")
        if not announced:
            waiting(f"Waiting for {holder} ({path.stem}).")
            announced = True
        # Polling, because a blocking flock can't be given up after a time, nor interrupted on Windows.
        time.sleep(_POLL_S)


def _sign(handle: int) -> None:
    """Write our process id for those who wait."""
    with contextlib.suppress(OSError):  # a full disk must not stop us: the lock itself needs no bytes
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, str(os.getpid()).encode())


def _holder(handle: int) -> str:
    with contextlib.suppress(OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        pid = os.read(handle, 32).decode("ascii", "replace")
        if pid:
            return f"process {pid}"
    return "another process"


if sys.platform == "win32":
    import msvcrt

    def _try(handle: int) -> bool:
        try:
            os.lseek(handle, _WINDOWS_OFFSET, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _release(handle: int) -> None:
        os.lseek(handle, _WINDOWS_OFFSET, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try(handle: int) -> bool:
        try:
            # flock and not lockf: it also holds between two threads of one process.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _release(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
