"""This process and others: limits of its memory and time, and locks between processes."""

import contextlib
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# A lock between processes, held by an open file: it is free again when its process dies.


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


# Limits of memory: those that a container sets, and those that a process sets for itself before it works on a stranger's files.


_FIRST_TO_GO = 800  # of 1,000: how gladly the system ends a process
_ARENA_MAX = -8  # number of an option of `mallopt`: the most heaps


def limit_memory(more: int) -> None:
    """Let this process take so many bytes of address space more than it has; beyond, allocations fail. Linux alone keeps to it.

    Nor does it write core files from here on.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def limit_cpu(more_s: int) -> None:
    """Let this process take so many whole seconds of processor time from now on; then the system kills it. Unix alone keeps to it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = math.ceil(used.ru_utime + used.ru_stime) + more_s
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def give_way() -> None:
    """Let the system end this process before others where memory runs out. Linux alone keeps to it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))


def memory_bytes(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that this process may use: the machine's, or what its container (cgroup, version 1 or 2) is limited to, if less.

    8 GB if unknown. `groups` and `mount`: where the system tells.
    """
    machine = 8 << 30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_group_limits(groups, mount)])


def _group_limits(groups: Path, mount: Path) -> Iterator[int]:
    """Yield the limits of this process's group and of every group above it."""
    for place, name, *_ in _group_places(groups, mount):
        with suppress(OSError, ValueError):  # "max" is no limit
            yield int((place / name).read_text())


def _group_places(groups: Path, mount: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the folders of this process's group and of every group above it; the names of the files of limit and use, and that of files
    which were read, in `memory.stat`."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Within a container the path may be the host's, and its mount is the container's own group: so up to the root.
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            yield place, *names
            if place == root:
                break


def free_bytes(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/meminfo")
) -> int | None:
    """Return the memory that this process may still take before something must give: what the system can have at once, or what is left of
    the limits of its container and of its address space, if less. None where the system doesn't tell.

    `groups`, `mount` and `told`: where the system tells.
    """
    left = [*_group_room(groups, mount), *_address_room()]
    with suppress(OSError, ValueError, IndexError):
        table = dict(line.split(":", 1) for line in told.read_text().splitlines() if ":" in line)
        left.append(int(table.get("MemAvailable", "").split()[0]) << 10 if "MemAvailable" in table else memory_bytes(groups, mount))
    return max(0, min(left)) if left else None


def own_bytes() -> int:
    """Return the memory of this process that no file holds; 0 where the system doesn't tell."""
    with suppress(OSError, ValueError, IndexError):
        resident, shared = map(int, Path("/proc/self/statm").read_bytes().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _address_room() -> Iterator[int]:
    """Yield what is left of this process's address space, if that is limited."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield limit - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _group_room(groups: Path, mount: Path) -> Iterator[int]:
    """Yield what is left of the limit of this process's group and of every group above it. Files that were read count as free."""
    for place, limit_name, used_name, files in _group_places(groups, mount):
        with suppress(OSError, ValueError):
            limit, used = (int((place / name).read_text()) for name in (limit_name, used_name))
            table = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            yield limit - used + int(table.get(files, 0))


def share_heap() -> None:
    """Let all threads of this process take memory from one heap, where the C library can (glibc); before they begin.

    Otherwise each has a heap of its own, and what it freed is no use to the others: 8 MB of an idle server.
    """
    if change := getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None:
        change(_ARENA_MAX, 1)


def release_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None:
        trim(0)
