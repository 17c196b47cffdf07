"""Handles Ctrl-C between two tokens.

An exception in the middle of a step would leave the other threads waiting for ours, so the signal only leaves a note.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ingle.cli.output import is_terminal

_PATIENCE = 3


class Stopped(Exception):
    """Ctrl-C came while the prompt was being read."""


class Interrupt:
    """Within the block, Ctrl-C makes `asked()` true. The third one raises KeyboardInterrupt, in case nobody calls it."""

    def __init__(self) -> None:
        self._count = 0
        self._before: Any = None

    def __enter__(self) -> "Interrupt":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def asked(self) -> bool:
        """Return whether Ctrl-C came."""
        return self._count > 0

    def ask(self) -> None:
        """Act as if Ctrl-C had come."""
        self._count = max(1, self._count)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count >= _PATIENCE:
            raise KeyboardInterrupt


@contextmanager
def silent_keys() -> Iterator[None]:
    """Within the block, the terminal doesn't echo typed keys, which would appear inside an answer. They are read afterwards."""
    if os.name == "nt" or not is_terminal(sys.stdin):
        yield
        return
    import termios

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(handle, termios.TCSADRAIN, before)
