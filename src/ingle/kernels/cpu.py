"""The CPU's features, and the instructions that kernels are therefore compiled to."""

import ctypes
import os
import platform
import sys
from functools import cache

from llvmlite import binding as llvm

# Older CPUs whose code paths can be compiled and tested on a newer one: `INGLE_CPU=haswell`.
_OLDER = {
    "x86-64": frozenset({"sse2"}),
    "haswell": frozenset({"sse2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2"}),
    "skylake-avx512": frozenset({"sse2", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq"}),
}


@cache
def name() -> str:
    """Return LLVM's name of the CPU that kernels are compiled for: this one, or for tests that of `INGLE_CPU` (`x86-64`, `haswell`, …)."""
    return os.environ.get("INGLE_CPU") or llvm.get_host_cpu_name()


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def _unreported() -> set[str]:
    """Return features of an Arm CPU that Linux reports and LLVM does not: I8MM, byte products with mixed signs."""
    if not _is_arm() or sys.platform != "linux":
        return set()
    library = ctypes.CDLL(None)
    library.getauxval.restype, library.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {"i8mm"} if library.getauxval(26) >> 13 & 1 else set()  # AT_HWCAP2, HWCAP2_I8MM


@cache
def features() -> frozenset[str]:
    """Return LLVM's names of the features that kernels may use, e.g. `avx512vnni`, `f16c`, `i8mm`."""
    if "INGLE_CPU" not in os.environ:
        return frozenset({feature for feature, has in llvm.get_host_cpu_features().items() if has} | _unreported())
    return _OLDER.get(name(), frozenset())


@cache
def dot_instruction() -> str:
    """Return the way to sum four byte products: `vnni512`, `vnni256`, `usdot`, `maddubs` (codes below 16 only) or `portable`."""
    has = features()
    if {"avx512vnni", "avx512bw"} <= has:
        return "vnni512"
    if "avxvnni" in has or {"avx512vnni", "avx512vl"} <= has:
        return "vnni256"
    if "i8mm" in has and _is_arm():
        return "usdot"
    return "maddubs" if "avx2" in has else "portable"


@cache
def has_bf16_dot() -> bool:
    """Return whether one instruction sums products of 16 pairs of bfloat16."""
    return {"avx512bf16", "avx512f"} <= features()


@cache
def has_bf16_tiles() -> bool:
    """Return whether one instruction multiplies tiles of bfloat16 (AMX), and Linux lets this process use it: it must be asked once."""
    if sys.platform != "linux" or not {"amx-bf16", "amx-tile", "avx512f"} <= features():
        return False
    return bool(ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0)  # arch_prctl, ARCH_REQ_XCOMP_PERM, the tiles' data


@cache
def tile_rows() -> tuple[int, int]:
    """Return the rows of a register tile in matrix products: of 16 float32, and of 16 int32 beside a tile of float32. They leave room for
    the factors. A row takes one of AVX-512's 32 registers, two of AVX2's 16, four of NEON's 32."""
    return (12, 12) if "avx512f" in features() else (6, 4)


@cache
def has_half() -> bool:
    """Return whether an instruction converts float16; without one LLVM would call a library that isn't there."""
    return bool({"f16c", "avx512f"} & features()) or _is_arm()


@cache
def describe() -> dict[str, str]:
    """Return the CPU's description for `ingle home doctor`."""
    has = features()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON")) if flag in has), "baseline")
    return {"name": name(), "machine": platform.machine(), "vectors": vectors, "byte dot product": dot_instruction()}
