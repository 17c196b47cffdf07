"""Compiled kernels in several threads: loaded once, and what is let go takes nothing with it."""

import gc
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier

import pytest

from ingle.core.errors import KernelError
from ingle.kernels import jit
from tests.waiting import PATIENCE_S, for_a_while


def test_threads_that_ask_at_once_get_the_same_kernel() -> None:
    start, made = Barrier(4), list[int]()

    @jit._once
    def make(number: int) -> object:
        made.append(number)
        for_a_while(0.1)  # the others ask meanwhile
        return object()

    def ask(number: int) -> object:
        start.wait(PATIENCE_S)
        return make(number)

    with ThreadPoolExecutor(4) as pool:
        first, second, other, again = pool.map(ask, [1, 1, 2, 1])
    assert first is second is again is not other
    assert sorted(made) == [1, 2]


def test_an_engine_that_ends_leaves_the_others_whole() -> None:
    engines = [jit._load("softmax_pick", frozenset(), "", "softmax_pick")[0] for _ in range(3)]
    kept = jit.kernel("softmax_pick")
    del engines
    gc.collect()
    another, address = jit._load("softmax_pick", frozenset(), "", "softmax_pick")
    assert address
    assert jit.kernel("softmax_pick") is kept
    del another


@pytest.mark.parametrize("upgraded,cure", [(False, "Is that folder writable"), (True, "run the same command again")])
def test_a_kernel_that_was_not_kept_says_why(upgraded: bool, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sources than this process began with, as an upgrade leaves, are kept under another key by the process that compiles them."""
    keys = iter(["now", "then"] if upgraded else ["now", "now"])
    monkeypatch.setattr(jit, "cache_key", cache(lambda: next(keys)))
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    jit.cache_key()
    with pytest.raises(KernelError, match=cure):
        jit._code("softmax_pick")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what a process holds")
@pytest.mark.parametrize("emulated", [False, True])
def test_the_compiler_s_memory_goes_and_the_process_lives(tmp_path: Path, emulated: bool) -> None:
    """An emulator says of every mapping that none of it is written; letting that go would take the loader's own tables with it."""
    code = """
import re, sys
from pathlib import Path
from ingle.kernels import jit
from tests.waiting import PATIENCE_S, for_a_while
smaps = Path("/proc/self/smaps")
def held():
    entries = re.findall(r"^[0-9a-f]+-[0-9a-f]+ r-.* (/.*)$(?:\\n[A-Z].*)*?\\nRss: +(\\d+) kB", smaps.read_text(), re.M)
    return sum(int(kb) for file, kb in entries if "llvmlite" in file)
before, forget = held(), jit._forget_compiler
jit._forget_compiler = lambda: None
jit.kernel("softmax_pick")
loaded = held()
if len(sys.argv) > 1:
    told = Path(sys.argv[1])
    told.write_text(re.sub(r"\\d+ kB", "0 kB", smaps.read_text()))
    forget(told)
else:
    forget()
print(before, loaded, held())
import sqlite3, decimal, lzma
jit._load("linear_fp32", frozenset(), "", "linear_fp32")
"""
    given = [str(tmp_path / "smaps")] if emulated else []
    result = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    _before, loaded, after = (int(kb) for kb in re.findall(r"\d+", result.stdout.splitlines()[-1]))
    assert after == loaded if emulated else after < loaded / 4
