"""Reads typed lines and piped input."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ingle.cli.output import colourful, is_terminal, note
from ingle.core.errors import RequestError
from ingle.core.files import os_errors, write_atomic

_FENCE = '"""'
_HISTORY_LINES = 1000
_PATIENCE_S = 3.0


def piped() -> bytes:
    """Return all piped or redirected input; nothing at a terminal or if standard input is closed."""
    if sys.stdin is None or sys.stdin.closed or is_terminal(sys.stdin):
        return b""
    if not _comes_soon(sys.stdin):  # a job may have handed down a pipe that nobody ever closes: say what we wait for
        note("Waiting for standard input to end (if nothing is meant to come: < /dev/null).")
    return sys.stdin.buffer.read()


def decode(data: bytes, where: str = "standard input") -> str:
    """Return the text of UTF-8 bytes. Raises RequestError with the first bad byte and `where` it came from."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte 0x{data[error.start]:02x} at position {error.start}"
        raise RequestError(where, "must be UTF-8", got, "Convert it, e.g. `iconv -f latin1 -t utf-8`.") from error


def read_turn(next_line: Callable[[bool], str | None]) -> str | None:
    """Return the next turn. It may have several lines: after a backslash at a line's end, or between two \"\"\".

    `next_line` is told whether it goes on a turn; None = nothing more will come.
    """
    line = next_line(False)
    if line is None:
        return None
    if line.lstrip().startswith(_FENCE):
        text = line.lstrip().removeprefix(_FENCE)
        while not text.rstrip().endswith(_FENCE):
            more = next_line(True)
            if more is None:
                return text
            text += "\n" + more
        return text.rstrip().removesuffix(_FENCE).strip("\n")
    while line.endswith("\\"):
        more = next_line(True)
        line = line[:-1] + "\n" + (more or "")
    return line


class PipeLines:
    """Reads lines of standard input, without a terminal."""

    def __init__(self) -> None:
        self._lines: Iterator[bytes] = iter(sys.stdin.buffer if sys.stdin is not None and not sys.stdin.closed else ())

    def __call__(self, _continues: bool) -> str | None:
        """Return the next line."""
        line = next(self._lines, None)
        return None if line is None else decode(line).rstrip("\r\n")


class TypedLines:
    """Reads lines at a terminal, with editing and a history, which is kept in a file (mode 600) unless that is None."""

    def __init__(self, history: Path | None, words: Sequence[str]) -> None:
        """`words`: completions for Tab."""
        self._history = history
        self._line_editor = _line_editor()
        if self._line_editor is not None:
            self._line_editor.set_auto_history(False)
            self._line_editor.set_completer_delims(" ")
            self._line_editor.set_completer(_completer(words))
            self._line_editor.parse_and_bind("tab: complete")
            for line in self._load():
                self._line_editor.add_history(line)

    def __call__(self, continues: bool) -> str | None:
        """Return the next line; None at Ctrl-D. Raises KeyboardInterrupt at Ctrl-C."""
        sign = "… " if continues else "› "
        if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
            sign = ". " if continues else "> "
        try:
            # The marks tell the line editor what takes no room on the screen.
            edited = self._line_editor is not None and colourful(sys.stdout)
            return input(f"\x01\x1b[1;36m\x02{sign}\x01\x1b[0m\x02" if edited else sign)
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            raise RequestError(
                "input", "must be UTF-8", f"byte 0x{error.object[error.start]:02x}", "Set your terminal to UTF-8."
            ) from error

    def typed(self) -> str:
        """Return the current content of the line."""
        return self._line_editor.get_line_buffer() if self._line_editor is not None else ""

    def remember(self, turn: str) -> None:
        """Add a turn to the history. Raises HomeError if the file can't be written."""
        if not turn.strip() or self._line_editor is None:
            return
        self._line_editor.add_history(turn)
        if self._history is not None:
            with os_errors(self._history):
                handle = os.open(self._history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                with os.fdopen(handle, "ab") as file:
                    file.write(json.dumps(turn).encode() + b"\n")

    def _load(self) -> list[str]:
        if self._history is None or not self._history.exists():
            return []
        with os_errors(self._history):
            lines = self._history.read_bytes().splitlines()
            self._history.chmod(0o600)
        if len(lines) > 2 * _HISTORY_LINES:
            write_atomic(self._history, b"\n".join(lines[-_HISTORY_LINES:]) + b"\n", mode=0o600)
        return [text for line in lines[-_HISTORY_LINES:] if isinstance(text := _parsed(line), str)]


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _line_editor() -> Any:
    """Return the readline module; None if Python has none (Windows) or lines are not typed."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _completer(words: Sequence[str]) -> Callable[[str, int], str | None]:
    def complete(text: str, state: int) -> str | None:
        completions = [word + " " for word in words if word.startswith(text)] if text.startswith("/") else []
        return completions[state] if state < len(completions) else None

    return complete


def _comes_soon(stream: Any) -> bool:
    """Return whether data or its end comes within a few seconds."""
    if os.name == "nt":
        return True
    import select

    return bool(select.select([stream], [], [], _PATIENCE_S)[0])
