"""The paths for older CPUs, compiled and run on this one: the same tests must hold on each."""

import os
import platform
import subprocess
import sys

import pytest

from ingle.kernels.cpu import _OLDER, features

pytestmark = pytest.mark.journey

OLDER = {
    "x86-64": "sse2",  # no AVX2, no F16C: everything portable
    "haswell": "avx2",  # AVX2 and F16C, no byte dot product
    "skylake-avx512": "avx512bw",  # AVX-512 without VNNI
}
DECIDING = {"avx2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avxvnni", "avx512bf16"}
"""What `ingle.kernels` asks for: CPUs that are alike in these take the same paths."""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="these are x86 CPUs")
@pytest.mark.parametrize("cpu", ["x86-64", "haswell", pytest.param("skylake-avx512", marks=pytest.mark.slow)])
def test_kernels_hold_on(cpu: str) -> None:
    if OLDER[cpu] not in features():
        pytest.skip(f"this CPU lacks {OLDER[cpu]}")
    if _OLDER[cpu] & DECIDING == features() & DECIDING:
        pytest.skip("this CPU takes the same paths, so all other tests say it")
    chosen = "exact or formats or softmax or (kernel_is_its_naive and int) or kernels_are_their_naive or whole_numbers or times_the_window"
    chosen += " or encoder_equals or single_linear_equals or rounded_numbers"
    files = [
        "tests/kernels/test_linear.py",
        "tests/kernels/test_bf16_product.py",
        "tests/kernels/test_k_quants.py",
        "tests/kernels/test_adapter_kernels.py",
        "tests/engine/test_cpu.py",
        "tests/engine/test_cpu_memory.py",
        "tests/engine/test_sampling.py",
        "tests/kernels/test_tower.py",
        "tests/train/test_train_attention.py",
        "tests/train/test_train_memory.py",
    ]
    command = [sys.executable, "-m", "pytest", *files, "-k", chosen, "--hypothesis-seed=1"]
    environment = {**os.environ, "INGLE_CPU": cpu, "PYTEST_ADDOPTS": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout
