"""What is written to the terminal: results to standard output, everything else to standard error."""

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
    """`text` without anything that a terminal would obey: a model, a file or a server wrote it."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def complain(error: IngleError) -> None:
    """The one place where errors become words: one line on standard error."""
    line = " ".join(printable(str(error)).split())
    mark = "\x1b[1;31mingle:\x1b[0m" if colourful(sys.stderr) else "ingle:"
    print(f"{mark} {line}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Something by the way, dim where that can be shown; never part of a result."""
    text = printable(text)
    print(f"\x1b[2m{text}\x1b[0m" if colourful(sys.stderr) else text, file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody sits at this stream; one that was closed before we began is None."""
    return stream is not None and not stream.closed and stream.isatty()


def colourful(stream: TextIO | None) -> bool:
    """Whether colours may be used there (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: object) -> None:
    """One JSON value, in lines that people can read."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell. Everything lines up, nothing is drawn, so that `grep` and `cut` still work."""
    cells = [tuple(headings), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(f"\x1b[1m{line}\x1b[0m" if number == 0 and colourful(sys.stdout) else line)


def size(nbytes: float) -> str:
    """Bytes for people: 98.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def confirm(question: str) -> bool:
    """Asks at the terminal; anything but a yes is a no. False where nobody can be asked."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
