"""Calls of kernels on PyTorch's own threads.

After each of its operations PyTorch's threads wait for the next one, for some milliseconds without giving up their cores. Threads of
ours would have to share these cores and take twice as long. So the kernels run on PyTorch's threads, through the OpenMP library that it
brings (libgomp). Where it brings another library, threads of ours are used after all.
"""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ingle.kernels.jit import build, kernel, stored, team_kernel


def compile_ahead(names: Sequence[str], say: Callable[[str], object]) -> None:
    """Compile the kernels that no earlier run has compiled, all at once, and say so: it takes seconds. Raises KernelError."""
    missing = [name for name in names if stored(name) is None]
    if missing:
        say("compiling training's kernels for this machine, once")
        build(missing)


def run_team(name: str, calls: Sequence[Sequence[int]]) -> None:
    """Call a kernel with each of these arguments, all at once as far as there are threads.

    Raises KernelError where it can't be compiled.
    """
    library = _openmp()
    if library is None:
        work, (mine, *others) = kernel(name), calls
        waiting = [_pool(len(others)).submit(work, *arguments) for arguments in others]
        work(*mine)
        for one in waiting:
            one.result()
        return
    address, _alive = team_kernel(name)
    functions = [ctypes.cast(function, ctypes.c_void_p).value for function in (library.omp_get_thread_num, library.omp_get_num_threads)]
    data = np.array([*functions, len(calls), *(number for arguments in calls for number in arguments)], np.int64)
    library.GOMP_parallel(ctypes.c_void_p(address), ctypes.c_void_p(data.ctypes.data), len(calls), 0)


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library in PyTorch's folder, which PyTorch itself has loaded; None where it is not GNU's."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "GOMP_parallel"):
            library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            library.GOMP_parallel.restype = None
            return library
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads), "kernels")
