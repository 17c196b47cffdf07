"""What this CPU can do, and which instructions the kernels are therefore compiled to."""

import ctypes
import os
import platform
import sys
from functools import cache

from llvmlite import binding as llvm

_OLDER = {
    "x86-64": frozenset({"sse2"}),
    "haswell": frozenset({"sse2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2"}),
    "skylake-avx512": frozenset({"sse2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq"}),
}
"""CPUs whose paths can be compiled and tested on a newer one: `INGLE_CPU=haswell`."""


@cache
def name() -> str:
    """LLVM's name of the CPU that kernels are compiled for: this one, or what `INGLE_CPU` says (`x86-64`, `haswell`, …), for tests."""
    return os.environ.get("INGLE_CPU") or llvm.get_host_cpu_name()


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def _unreported() -> set[str]:
    """What Linux says of an Arm CPU and LLVM does not pass on: I8MM, byte products with mixed signs."""
    if not _is_arm() or sys.platform != "linux":
        return set()
    library = ctypes.CDLL(None)
    library.getauxval.restype, library.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {"i8mm"} if library.getauxval(26) >> 13 & 1 else set()  # AT_HWCAP2, HWCAP2_I8MM


@cache
def features() -> frozenset[str]:
    """LLVM's names of the features that kernels may use, e.g. `avx512vnni`, `f16c`, `i8mm`."""
    if "INGLE_CPU" not in os.environ:
        return frozenset({feature for feature, has in llvm.get_host_cpu_features().items() if has} | _unreported())
    return _OLDER.get(name(), frozenset())


@cache
def dot_instruction() -> str:
    """How four byte products are summed: `vnni512`, `vnni256`, `usdot`, `maddubs` (codes below 16 only) or `portable`."""
    has = features()
    if {"avx512vnni", "avx512bw"} <= has:
        return "vnni512"
    if "avxvnni" in has or {"avx512vnni", "avx512vl"} <= has:
        return "vnni256"
    if "i8mm" in has and _is_arm():
        return "usdot"
    return "maddubs" if "avx2" in has else "portable"


@cache
def tile_rows() -> tuple[int, int]:
    """Rows of a register tile in matrix products, of 16 float32 and of 16 int32 beside a tile of float32: what leaves room for what is
    multiplied. Of the 32 registers of AVX-512 a row takes one, of the 16 of AVX2 two, of the 32 of NEON four."""
    return (12, 12) if "avx512f" in features() else (6, 4)


@cache
def has_half() -> bool:
    """Whether float16 is converted by an instruction; without it LLVM would call a library that isn't there."""
    return bool({"f16c", "avx512f"} & features()) or _is_arm()


@cache
def describe() -> dict[str, str]:
    """What `ingle doctor` shows of the CPU."""
    has = features()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON")) if flag in has), "baseline")
    return {"name": name(), "machine": platform.machine(), "vectors": vectors, "byte dot product": dot_instruction()}
