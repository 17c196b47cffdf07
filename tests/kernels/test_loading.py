"""Compiled kernels in several threads: loaded once, and what is let go takes nothing with it."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier

import pytest

from ingle.core.errors import KernelError
from ingle.kernels import jit


def test_threads_that_ask_at_once_get_the_same_kernel() -> None:
    start, made = Barrier(4), list[int]()

    @jit._once
    def make(number: int) -> object:
        made.append(number)
        time.sleep(0.1)  # the others ask meanwhile
        return object()

    def ask(number: int) -> object:
        start.wait(30)
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
