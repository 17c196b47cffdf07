"""Answers on the screen: however the text comes in pieces, the end is what rendering it at once would be, and nothing above changes."""

import io
import os
import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.cli import markdown
from ingle.cli.output import printable
from ingle.cli.screen import MarkdownScreen, PlainScreen, Tail
from tests.examples import examples

TEXT = """# Title

A paragraph with **bold**, *italic*, `code` and a [link](https://example.org/a).
The second line is kept as it is, and this one is so long that it has to be wrapped somewhere around here.

| Name | Size |
|:-----|-----:|
| one | 1 |
| two and more | 22 |

- item
  - nested `x`
- item two

10. ten
11. eleven

> quoted

```python
def f(x):
    \"\"\"Doc.\"\"\"
    return x  # comment
```

<b>tags stay</b>

日本語 🎉

***

    indented code
"""


class Terminal:
    """As much of a terminal as we use: text, line feeds, and the sequences that move up, erase below, or change nothing visible."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.rows, self.row, self.column = [""], 0, 0
        self.changed_above = False

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", text):
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                self.rows += [""] * (self.row + 1 - len(self.rows))
            elif part == "\r":
                self.column = 0
            elif part.startswith("\x1b["):
                self._obey(part)
            else:
                line = self.rows[self.row]
                assert self.column == len(line), "we only ever write at the end of a line"
                self.rows[self.row] = line + part
                self.column += len(part)
        return len(text)

    def _obey(self, sequence: str) -> None:
        if sequence.endswith("A"):
            self.row -= int(sequence[2:-1])
            assert self.row >= max(0, len(self.rows) - self.lines), "moved above the screen"
        elif sequence == "\x1b[J":
            assert self.column == 0
            del self.rows[self.row + 1 :]
            self.rows[self.row] = ""
        else:
            assert sequence[-1] in "mhl", sequence

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.rows).rstrip()


def shown(pieces: list[str], monkeypatch: pytest.MonkeyPatch, columns: int = 60, lines: int = 24) -> Terminal:
    terminal = Terminal(columns, lines)
    with monkeypatch.context() as patch:
        patch.setattr("ingle.cli.screen.get_terminal_size", lambda: os.terminal_size((columns, lines)))
        patch.setenv("COLORTERM", "truecolor")
        patch.setattr("ingle.cli.screen._PERIOD_S", 0.0)
        patch.setattr("ingle.cli.screen._SHARE", 0)
        patch.setattr(sys, "stdout", type("Out", (io.StringIO,), {"write": lambda _self, text: terminal.write(text)})())
        screen = MarkdownScreen()
        for piece in pieces:
            screen.show(piece)
        screen.finish()
    return terminal


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=40), columns=st.integers(20, 120))
@examples(40)
def test_pieces_end_as_the_whole(cuts: list[int], columns: int) -> None:
    edges = [0, *sorted(cuts), len(TEXT)]
    pieces = [TEXT[a:b] for a, b in pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        whole = shown([TEXT], patch, columns, 80)
        parts = shown(pieces, patch, columns, 80)
    assert parts.text() == whole.text()


def test_character_by_character(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = shown([TEXT], monkeypatch, lines=80), shown(list(TEXT), monkeypatch, lines=80)
    assert parts.text() == whole.text()
    for words in ("Title", "• nested x", "10. ten", "▌ quoted", "  def f(x):", "<b>tags stay</b>", "(https://example.org/a)"):
        assert words in whole.text()
    assert "**" not in whole.text()


def test_a_block_taller_than_the_screen_scrolls_away_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "```\n" + "\n".join(f"line {n}" for n in range(100)) + "\n```\n\nend"
    terminal = shown([code[i : i + 7] for i in range(0, len(code), 7)], monkeypatch, lines=10)
    assert terminal.text() == "\n".join(f"  line {n}" for n in range(100)) + "\n\nend"


def test_only_what_differs_is_written() -> None:
    written: list[str] = []
    tail = Tail(written.append, lambda: os.terminal_size((80, 24)))
    tail.show(["one", "tw"])
    tail.show(["one", "two"])
    tail.show(["one", "two", "three"])
    assert written == ["one\ntw", "o", "\nthree"]
    tail.show(["one", "2"])
    assert written[-1] == "\x1b[?2026h\x1b[1A\r\x1b[J2\x1b[?2026l"
    tail.settle()
    tail.show(["new"])
    assert written[-2:] == ["\n", "new"]


def test_a_line_that_may_become_a_heading_waits() -> None:
    assert markdown.decided("text\n-") == "text"
    assert markdown.decided("text\n- item") == "text\n- item"
    assert markdown.decided("``") == ""
    assert markdown.decided("a\n1.") == "a"
    assert markdown.decided("so 2 + 2 = 4.") == "so 2 + 2 = 4."


@given(st.text(alphabet="#*_`~>|-+[]()!\\ \n\tab1.:&<", max_size=200))
@examples(150)
def test_no_text_ends_the_conversation(text: str) -> None:
    console = markdown.make_console(40)
    for block in markdown.split_blocks(text):
        for line in markdown.render(console, block, 40):
            assert "\n" not in line


def test_deep_quotes_are_shown_somehow() -> None:
    for block in markdown.split_blocks(">" * 60 + " deep"):
        assert "deep" in "".join(markdown.render(markdown.make_console(20), block, 20))


def test_commands_for_the_terminal_are_taken_out() -> None:
    assert printable("a\x1b[31mb\x07c\x9bd\r\ne\tf") == "a\ufffd[31mb\ufffdc\ufffdd\ne\tf"


def test_plain_text_ends_with_a_line_break(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    screen.show("a\n")
    screen.show("b")
    screen.finish()
    screen.finish()
    assert capsys.readouterr().out == "a\nb\n\n"
