"""Limits of memory: those that a container sets, and those that a process sets for itself before it works on a stranger's files."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ARENA_MAX = -8
"""Number of an option of `mallopt`: the most heaps."""


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


def memory_bytes(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory that this process may use: the machine's, or what its container (cgroup, version 1 or 2) is limited to, if less.

    8 GB if unknown. `groups` and `mount`: where the system tells.
    """
    machine = 8 << 30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_group_limits(groups, mount)])


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory that is free for this process now: what the system says is available, `memory_bytes` at most.

    `memory_bytes` where the system says nothing. `meminfo`: where Linux tells.
    """
    most = memory_bytes()
    try:
        lines = meminfo.read_text("ascii").splitlines()
        return min(most, next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    except (OSError, ValueError, LookupError, StopIteration):
        return most


def _group_limits(groups: Path, mount: Path) -> Iterator[int]:
    """Yield the limits of this process's group and of every group above it."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Within a container the path may be the host's, and its mount is the container's own group: so up to the root.
        folder = root / path.strip("/")
        for place in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # "max" is no limit
                yield int((place / name).read_text())
            if place == root:
                break


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
