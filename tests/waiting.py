"""Waiting for something, patiently: the one place where tests read a clock and sleep. A slow machine makes a test late, never wrong."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 120.0
PAUSE_S = 0.02


def wait_until(true: Callable[[], T], what: str, within_s: float = PATIENCE_S) -> T:
    """The first answer of `true` that is one. A file that isn't there yet is no answer.

    Raises: AssertionError after `within_s` seconds, with what was waited for and what was last seen.
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() > deadline  # before it is asked: whoever was kept from running asks once more
        seen: T | FileNotFoundError
        try:
            if seen := true():
                return seen
        except FileNotFoundError as error:
            seen = error
        assert not late, f"waited {within_s:g} s in vain: {what}; last seen: {seen!r}"
        time.sleep(PAUSE_S)


def for_a_while(seconds: float) -> None:
    """Lets time pass where something must *not* happen. A machine that is too slow finds less that way, and never something wrong."""
    time.sleep(seconds)
