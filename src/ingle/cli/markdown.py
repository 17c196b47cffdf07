"""Markdown for a terminal, block by block. All blocks before the last are finished and never change.

Colours are the terminal's own sixteen, in the shades that are legible on dark and on light, and no backgrounds.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, MarkdownElement
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

MAX_WIDTH = 100  # most columns of a line: longer ones are hard to read
_STYLES = {
    "markdown.code": "cyan", "markdown.h1": "bold underline", "markdown.h2": "bold underline", "markdown.h3": "bold",
    "markdown.h4": "bold italic", "markdown.h5": "italic", "markdown.h6": "italic", "markdown.h7": "italic", "markdown.link": "underline",
    "markdown.link_url": "cyan", "markdown.block_quote": "italic", "markdown.hr": "dim", "markdown.item.bullet": "magenta",
    "markdown.item.number": "magenta", "markdown.table.header": "bold", "markdown.table.border": "dim",
}  # fmt: skip
# A line of nothing but signs: what it means depends on what comes next ("-" under a text is a heading, before one a list).
_UNDECIDED = re.compile(r"(?:^|\n)[ \t\-=*_#`~+>|:.\d]*\Z")


@dataclass(frozen=True, slots=True)
class TextBlock:
    """One block at the top level of a text."""

    tokens: tuple[Token, ...]
    start: int  # offset of its first line in the text
    source: str  # source of the block


def split_blocks(text: str) -> list[TextBlock]:
    """Return the blocks of a text, in order."""
    groups: list[list[Token]] = []
    depth = 0
    for token in _parser().parse(text):
        if depth == 0:
            groups.append([])
        depth += token.nesting
        groups[-1].append(token)
    lines = [0]
    for line in text.split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    starts = [lines[group[0].map[0]] if group[0].map else 0 for group in groups]
    return [
        TextBlock(tuple(group), start, text[start:end]) for group, start, end in zip(groups, starts, [*starts, len(text)][1:], strict=True)
    ]


def decided(text: str) -> str:
    """Return the part of an unfinished text that later text can't change."""
    return _UNDECIDED.sub("", text)


def make_console(width: int) -> Console:
    """Return a console with our styles for standard output."""
    return Console(width=width, theme=Theme(_STYLES), highlight=False, legacy_windows=False)


def render(console: Console, block: TextBlock, width: int) -> list[str]:
    """Return the lines of a block with escape sequences, none wider than `width`."""
    try:
        lines = _lines(console, _Blocks(block.tokens), min(width, MAX_WIDTH))
    except Exception:  # whatever a model writes must not end the conversation: it is shown as it is
        lines = []
    return lines or _lines(console, Text(block.source), width)  # also where nested quotes leave no room for the text


def _lines(console: Console, what: RenderableType, width: int) -> list[str]:
    with console.capture() as capture:
        console.print(what, width=width)
    lines = [line.rstrip() for line in capture.get().split("\n")]
    while lines and not _bare(lines[-1]):
        lines.pop()
    while lines and not _bare(lines[0]):
        lines.pop(0)
    return lines


class _Code(CodeBlock):
    """Code in the terminal's own colours, indented by two columns."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax(str(self.text).rstrip(), self.lexer_name, theme=_code_theme(), word_wrap=True)
        yield Padding(syntax, (0, 0, 0, 2))


class _Heading(Heading):
    """A left-aligned heading."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        yield text


class _Item(ListItem):
    """A list item; numbers have a dot."""

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        """The lines of a numbered item."""
        width = len(str(last_number)) + 3
        lines = console.render_lines(self.elements, options.update(width=options.max_width - width), style=self.style)
        style = console.get_style("markdown.item.number")
        for row, line in enumerate(lines):
            yield Segment(f"{number}.".rjust(width - 1) + " " if row == 0 else " " * width, style)
            yield from line
            yield Segment("\n")


class _Blocks(Markdown):
    """Blocks that are parsed already. Links show their targets, because a model wrote them."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "heading_open": _Heading,
        "list_item_open": _Item,
    }

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = list(tokens)


@cache
def _parser() -> MarkdownIt:
    # Without HTML, which rich would swallow: a model's tags are part of what it says.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    parser.core.ruler.push("keep_lines", _keep_lines)
    return parser


def _keep_lines(state: Any) -> None:
    """Keep single line breaks: models write poems and addresses without Markdown's two spaces."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


@cache
def _code_theme() -> ANSISyntaxTheme:
    styles = {
        ("Comment",): Style(dim=True, italic=True), ("Keyword",): Style(color="magenta"), ("Operator", "Word"): Style(color="magenta"),
        ("Name", "Builtin"): Style(color="cyan"), ("Name", "Function"): Style(bold=True), ("Name", "Class"): Style(bold=True),
        ("Name", "Decorator"): Style(color="cyan"), ("Name", "Tag"): Style(color="magenta"), ("Name", "Attribute"): Style(color="cyan"),
        ("String",): Style(color="green"), ("Number",): Style(color="cyan"), ("Generic", "Deleted"): Style(color="red"),
        ("Generic", "Inserted"): Style(color="green"), ("Generic", "Heading"): Style(bold=True),
    }  # fmt: skip
    return ANSISyntaxTheme(styles)


def _bare(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
