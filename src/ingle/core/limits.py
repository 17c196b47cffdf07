"""Limits that a process sets for itself, before it works on what a stranger made."""

import os
from contextlib import suppress
from pathlib import Path


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
