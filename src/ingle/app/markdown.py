"""Renders the Markdown of an answer as inert HTML: the text of a model is never trusted.

Raw HTML is shown as text, links lead only to http, https and mailto, and images are links: nothing is loaded because of an answer.
`Growing` renders an answer while it is written. Blocks that are complete are sent once; only the last, open one is sent again.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML

if TYPE_CHECKING:
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

# One change for the browser: ("done", 0, HTML of complete blocks); ("open", length of the open block's HTML that stays, HTML after it);
# ("code", 0, text added to the code of the open block). Lengths are in UTF-16 units, as in JavaScript.
Stroke = tuple[str, int, str]

_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,30}")
_MOST_HIGHLIGHTED = 20_000  # characters of code beyond which colours are not worth their time (4 ms for 1,000)
_MOST_REMEMBERED = 8_000  # characters of an answer whose HTML is remembered
_LINKS = re.compile(r"(https?|mailto):", re.IGNORECASE)
# A line of nothing but marks may become a rule, a list, a fence or bold text: what it is shows with its next character.
_LINE_END = re.compile(r"\r\n?|\n")
_UNDECIDED = re.compile(r"(^|\n)[ \t]*([-=*_+#>`~|]+|\d{1,9}[.)]?)[ \t]*$|[*`]+$")


@lru_cache(2_048)
def _short(text: str) -> str:
    return render(text)


def rendered(text: str) -> str:
    """Return the HTML of an answer that may be asked for again."""
    return _short(text) if len(text) <= _MOST_REMEMBERED else render(text)


def render(text: str) -> str:
    """Return the HTML of a whole answer."""
    return str(_markdown().render(text))


class GrowingMarkdown:
    """Renders an answer while it is being written."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._source = ""
        self._open = ""
        self._code = ""

    @property
    def complete(self) -> str:
        """The HTML of the blocks that are complete."""
        return "".join(self._done)

    @property
    def open(self) -> Stroke:
        """The stroke that draws the block that is still open."""
        return "open", 0, self._open

    def take(self, text: str) -> list[Stroke]:
        """Adds more of the answer. Returns the changes for the page."""
        self._source += text
        markdown = _markdown()
        strokes: list[Stroke] = []
        tokens = markdown.parse(_decided(self._source))
        starts = [i for i, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0 and token.map]
        if len(starts) > 1:
            strokes.append(("done", 0, self._complete(markdown.renderer.render(tokens[: starts[-1]], markdown.options, {}))))
            self._source = _from_line(self._source, (tokens[starts[-1]].map or [0])[0])
            tokens = markdown.parse(_decided(self._source))
        return [*strokes, *self._show(tokens)]

    def finish(self) -> list[Stroke]:
        """Ends the answer. Returns the last changes."""
        html = render(self._source)
        self._source = ""
        return [("done", 0, self._complete(html))] if html else []

    def _complete(self, html: str) -> str:
        self._done.append(html)
        self._open = self._code = ""
        return html

    def _show(self, tokens: "Sequence[Token]") -> list[Stroke]:
        markdown = _markdown()
        if len(tokens) == 1 and tokens[0].type == "fence":
            code, before = tokens[0].content, self._code
            self._code, self._open = code, _code_block(code, tokens[0].info, colours=False)
            if before and code.startswith(before):
                return [("code", 0, code[len(before) :])] if code != before else []
            return [("open", 0, self._open)]
        before, self._code = self._open, ""
        self._open = str(markdown.render(_mended(_decided(self._source))))
        if self._open == before:
            return []
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._open, before, strict=False)))
        return [("open", len(self._open[:same].encode("utf-16-le")) // 2, self._open[same:])]


class _Harmless(RendererHTML):
    """Renders code with a header, images as links, links that load nothing, and tables that scroll."""

    def fence(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Renders fenced code."""
        return _code_block(tokens[idx].content, tokens[idx].info)

    def code_block(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Renders indented code."""
        return _code_block(tokens[idx].content, "")

    def image(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Renders an image as a link to it."""
        return f"{_link(str(tokens[idx].attrs.get('src', '')))}{escape(tokens[idx].content or 'image')}</a>"

    def link_open(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Renders a link that shows its target."""
        return _link(str(tokens[idx].attrs.get("href", "")))

    def table_open(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Opens a table in a box that scrolls, for it may be wider than the page."""
        return '<div class="wide"><table>\n'

    def table_close(self, tokens: "Sequence[Token]", idx: int, options: "OptionsDict", env: "EnvType") -> str:
        """Closes a table and its box."""
        return "</table></div>\n"


class _Markdown(MarkdownIt):
    """CommonMark with links to the web only."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name
        """Return whether a link is to the web."""
        return bool(_LINKS.match(url.strip()))


@cache
def _markdown() -> _Markdown:
    markdown = _Markdown("commonmark", {"html": False, "breaks": True}, renderer_cls=_Harmless)
    markdown.enable(["table", "strikethrough"])
    # A line of dashes below a paragraph is a rule or the beginning of a list, hardly ever what makes that paragraph a heading.
    markdown.disable(["lheading", "html_block", "html_inline"])
    return markdown


def _link(target: str) -> str:
    return f'<a href="{escape(target)}" title="{escape(target)}" rel="noopener noreferrer">'


def _code_block(code: str, info: str, colours: bool = True) -> str:
    name = info.strip().split(maxsplit=1)[0] if info.strip() else ""
    name = name if _LANGUAGE.fullmatch(name) else ""
    inner = (_coloured(code, name) if colours and len(code) <= _MOST_HIGHLIGHTED else None) or escape(code, quote=False)
    head = f'<figcaption><span>{escape(name)}</span><button type="button" data-copy="code">Copy</button></figcaption>'
    return f'<figure class="code">{head}<pre tabindex="0"><code>{inner}</code></pre></figure>\n'


def _coloured(code: str, language: str) -> str | None:
    """Return code as HTML with a class per kind of word; None for an unknown language."""
    from pygments import highlight  # type: ignore[import-untyped]
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return None
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _decided(source: str) -> str:
    """Return the text without marks at its end that the next characters decide."""
    return _UNDECIDED.sub(r"\1", source)


def _mended(source: str) -> str:
    """Return the text with open bold text and code closed, so that their marks don't flash by."""
    last = source[source.rfind("\n") + 1 :]
    if last.count("`") % 2:
        return source + "`"
    return source.rstrip() + "**" if last.count("**") % 2 else source


def _from_line(source: str, line: int) -> str:
    """Return the text after so many lines, counted as the library does; "" if there is none."""
    ends = [found.end() for found in islice(_LINE_END.finditer(source), line)]
    return source if not line else source[ends[-1] :] if len(ends) == line else ""
