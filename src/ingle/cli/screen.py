"""Shows an answer while it is being written.

At a terminal, finished blocks are final, and only the changed part of the last block is written again. So nothing flickers, long
answers cost no more than short ones, and the screen above stays as it was. Elsewhere it writes plain text as it comes.
"""

import re
import sys
import time
from collections.abc import Callable
from os import terminal_size
from shutil import get_terminal_size
from typing import Protocol

from ingle.cli.output import colourful, is_terminal, printable

_PERIOD_S = 0.04
_SHARE = 10  # drawing may take one part in so many of the time, so a long block is drawn less often
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows them shows what is between them at once


class Screen(Protocol):
    """Shows one answer."""

    def show(self, text: str) -> None:
        """Shows the next piece."""
        ...

    def finish(self) -> None:
        """Ends the answer, with the cursor at the beginning of a line."""
        ...


def make_screen(markdown: bool) -> Screen:
    """Return the screen for standard output."""
    return MarkdownScreen() if markdown and colourful(sys.stdout) else PlainScreen()


class PlainScreen:
    """Writes plain text as it comes."""

    def __init__(self) -> None:
        self._harmless = is_terminal(sys.stdout)
        self._last = "\n"

    def show(self, text: str) -> None:
        """See `Screen`."""
        text = printable(text) if self._harmless else text
        self._last = text[-1:] or self._last
        sys.stdout.write(text)
        sys.stdout.flush()

    def finish(self) -> None:
        """See `Screen`."""
        if self._last != "\n":
            print(flush=True)


class MarkdownScreen:
    """Renders Markdown while it grows."""

    def __init__(self) -> None:
        from ingle.cli.markdown import make_console

        self._console = make_console(get_terminal_size().columns - 1)
        self._tail = Tail(sys.stdout.write, get_terminal_size)
        self._text = ""  # text of blocks that are not finished
        self._begun = False
        self._next_s = 0.0

    def show(self, text: str) -> None:
        """See `Screen`."""
        self._text += printable(text)
        now = time.monotonic()
        if now >= self._next_s:
            from ingle.cli.markdown import decided

            self._draw(decided(self._text))
            sys.stdout.flush()
            spent = time.monotonic() - now
            self._next_s = now + max(_PERIOD_S, _SHARE * spent)

    def finish(self) -> None:
        """See `Screen`."""
        self._draw(self._text)
        self._tail.settle()
        sys.stdout.flush()

    def _draw(self, text: str) -> None:
        from ingle.cli.markdown import render, split_blocks

        width = get_terminal_size().columns - 1  # a character in the last column leaves the cursor in between two lines
        blocks = split_blocks(text)
        for block in blocks[:-1]:
            self._tail.show(self._gap() + render(self._console, block, width))
            self._tail.settle()
            self._begun = True
        if blocks:
            self._tail.show(self._gap() + render(self._console, blocks[-1], width))
            self._text = self._text[blocks[-1].start :]

    def _gap(self) -> list[str]:
        return [""] if self._begun else []


class Tail:
    """The last lines on the screen, which may still change. The cursor is at the end of the last one."""

    def __init__(self, write: Callable[[str], object], size: Callable[[], terminal_size]) -> None:
        self._write, self._size = write, size
        self._lines: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Replaces the lines by `lines`, from the first one that differs."""
        old, same = self._lines, 0
        while same < min(len(old), len(lines)) and old[same] == lines[same]:
            same += 1
        self._lines = lines
        if same == len(old) == len(lines):
            return
        if same == len(old):
            self._write(("\n" if old else "") + "\n".join(lines[same:]))
            return
        if same == len(old) - 1 and same < len(lines) and lines[same].startswith(old[same]):
            self._write("\n".join([lines[same][len(old[same]) :], *lines[same + 1 :]]))
            return
        same = max(min(same, len(lines) - 1), self._reach(old))
        up = sum(map(self._rows, old[same:])) - 1
        move = f"\x1b[{up}A" if up > 0 else ""
        self._write(_BEGIN + move + "\r\x1b[J" + "\n".join(lines[same:]) + _END)

    def settle(self) -> None:
        """Makes the lines final. The next ones begin below."""
        if self._lines:
            self._write("\n")
        self._lines = []

    def _reach(self, lines: list[str]) -> int:
        """Return the index of the first line that is still on the screen."""
        left, first = self._size().lines, len(lines)
        while first > 0 and (left := left - self._rows(lines[first - 1])) >= 0:
            first -= 1
        return min(first, len(lines) - 1)

    def _rows(self, line: str) -> int:
        """Return the rows of a line; more than one only if the window has become narrower since."""
        from rich.cells import cell_len

        width = cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line))
        return max(1, -(-width // max(1, self._size().columns)))
