"""What a model writes becomes HTML that can do nothing, and grows into the same HTML however it is cut."""

from html import escape
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.app.markdown import GrowingMarkdown, render
from tests.examples import examples

TAGS = {
    "a", "blockquote", "br", "button", "code", "div", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {"class", "data-copy", "href", "rel", "start", "style", "tabindex", "title", "type"}
PIECES = (
    "a word ", "**", "`", "```", "```python\n", "\n", "\n\n", "- ", "1. ", "# ", "| a | b |\n|---|---|\n", "> ", "def f(x): return '<b>'\n",
    "😀", "é", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![i](http://192.0.2.1/x.png)",
    "[b](https://example.org/?a=1&b=\"2\")", "&lt;", "&#106;", "---", "***", "    ", "[r]: javascript:alert(1)\n\n[r]", "\\", "~~s~~", "\t",
    "<javascript:alert(1)>", "[x](data:text/html;base64,PHNjcmlwdD4=)", "\u202e", "</code></pre>", "JaVaScRiPt:", "[c](vbscript:x)",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=40).map("".join)


class Reader(HTMLParser):
    """Fails at everything that a browser might act on."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name, value)
            assert name != "style" or value in ("text-align:left", "text-align:right", "text-align:center"), value
            assert name != "href" or (value or "").lower().startswith(("http:", "https:", "mailto:")), value


def harmless(html: str) -> None:
    reader = Reader()
    reader.feed(html)
    reader.close()


@given(texts)
@examples(300)
def test_nothing_active_comes_out(text: str) -> None:
    harmless(render(text))


@example("one\rtwo\r\r# three\r\n\r\n```\rfour\r```\rfive\r\rsix", [1])
@given(texts, st.lists(st.integers(1, 12), min_size=1, max_size=20))
@examples(300)
def test_it_grows_into_what_the_browser_is_told(text: str, sizes: list[int]) -> None:
    growing, done, rest, at, turn = GrowingMarkdown(), "", "", 0, 0
    while at < len(text):
        strokes = growing.take(text[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
        for kind, keep, more in strokes:  # as static/turn.js does it
            if kind == "done":
                done, rest = done + more, ""
            elif kind == "open":
                rest = rest.encode("utf-16-le")[: 2 * keep].decode("utf-16-le") + more
            else:
                before, mark, after = rest.partition("</code>")
                rest = before + escape(more, quote=False) + mark + after
        assert (done, rest) == (growing.complete, growing.open[2])
        harmless(done + rest)
    for kind, _, more in growing.finish():
        assert kind == "done"
        done += more
    assert done == growing.complete
    harmless(done)


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_usual_answer_grows_into_its_whole(size: int) -> None:
    text = (
        "# Bread\n\nIt **rises** because of `yeast`.\nA second line.\n\n1. Mix\n2. Wait\n   - an hour\n   - or two\n\n> A quotation\n\n"
        "```python\ndef rise(dough):\n\n    return dough * 2  # <b>\n```\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\nThe end – see [here](https://example.org).\n"
    )
    growing = GrowingMarkdown()
    for at in range(0, len(text), size):
        growing.take(text[at : at + size])
    growing.finish()
    assert growing.complete == render(text)


def test_marks_do_not_flash_by() -> None:
    growing = GrowingMarkdown()
    seen = []
    for letter in "A **bold** word, `code`:\n- one\n- two\n":
        growing.take(letter)
        seen.append(growing.complete + growing.open[2])
    assert not [html for html in seen if "*" in html or "`" in html or "<h2" in html or "<p>-" in html]


def test_images_are_links_and_links_say_where_they_lead() -> None:
    link = '<a href="https://example.org/x.png" title="https://example.org/x.png" rel="noopener noreferrer">'
    assert render("![an image](https://example.org/x.png)") == f"<p>{link}an image</a></p>\n"
    assert render("[x](https://example.org/x.png)") == f"<p>{link}x</a></p>\n"
    assert "<a" not in render("[x](javascript:alert(1)) [y](/local) [z](//elsewhere) ![](data:image/png;base64,xx)")


def test_code_keeps_its_words() -> None:
    html = render('```python extra\nprint("<&>")\n```')
    assert '<span>python</span><button type="button" data-copy="code">Copy</button>' in html
    assert "&lt;&amp;&gt;" in html and '<span class="nb">print</span>' in html
    assert "<script" not in render('```"><script>\nx\n```')
    assert "<span class=" not in render(f"```python\n{'x = 1  # long' * 2000}\n```"), "colours cost too much there"
