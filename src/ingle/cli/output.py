"""Writes to the terminal: results to standard output, everything else to standard error."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from ingle.core.errors import IngleError

# Everything below the space but newline and tab, DEL, and the C1 controls: in a terminal these are commands, not text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return text without control characters, which a model, a file or a server may have put there."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def complain(error: IngleError) -> None:
    """Print an error as one line on standard error."""
    line = " ".join(printable(str(error)).split())
    mark = "\x1b[1;31mingle:\x1b[0m" if colourful(sys.stderr) else "ingle:"
    print(f"{mark} {line}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print a side remark on standard error, dim if possible."""
    text = printable(text)
    print(f"\x1b[2m{text}\x1b[0m" if colourful(sys.stderr) else text, file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; None is a closed one."""
    return stream is not None and not stream.closed and stream.isatty()


def colourful(stream: TextIO | None) -> bool:
    """Return whether colours may be used (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: object) -> None:
    """Print indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns, without lines between them, so that `grep` and `cut` work."""
    cells = [tuple(headings), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(f"\x1b[1m{line}\x1b[0m" if number == 0 and colourful(sys.stdout) else line)


def confirm(question: str) -> bool:
    """Ask at the terminal; anything but a yes is a no. False without a terminal."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
