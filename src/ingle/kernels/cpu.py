"""What this CPU can do, and which instructions the kernels are therefore compiled to."""

import os
import platform
from functools import cache

from llvmlite import binding as llvm


@cache
def features() -> frozenset[str]:
    """LLVM's names of the CPU's features, e.g. `avx512vnni`, `f16c`, `i8mm`.

    `INGLE_CPU=portable` leaves out the byte dot products, so that the portable path can be tested and compared on any machine.
    """
    found = frozenset(name for name, has in llvm.get_host_cpu_features().items() if has)
    if os.environ.get("INGLE_CPU") == "portable":
        found -= {"avx512vnni", "avxvnni", "i8mm"}
    return found


@cache
def dot_instruction() -> str:
    """How four byte products are summed: `vnni512`, `vnni256`, `usdot` or `portable`."""
    has = features()
    if {"avx512vnni", "avx512bw"} <= has:
        return "vnni512"
    if "avxvnni" in has or {"avx512vnni", "avx512vl"} <= has:
        return "vnni256"
    return "usdot" if "i8mm" in has and platform.machine().lower() in ("aarch64", "arm64") else "portable"


@cache
def describe() -> dict[str, str]:
    """What `ingle doctor` shows of the CPU."""
    has = features()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON")) if flag in has), "baseline")
    return {"name": llvm.get_host_cpu_name(), "machine": platform.machine(), "vectors": vectors, "byte dot product": dot_instruction()}
