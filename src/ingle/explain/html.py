"""An explanation as a page in one file: the prompt with its causes shaded, the answer, and the figures in words. Colour is never alone."""

from collections.abc import Sequence
from html import escape

from ingle.core.message import Request
from ingle.explain.cause import ProvedCause, Why
from ingle.explain.sentences import Sentence, sentences_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
mark { background: rgba(230, 150, 40, var(--depth)); border-bottom: 2px solid #b46a00; color: inherit }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
blockquote { margin: 0; white-space: pre-wrap }
.of { color: #666 }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #ddd } .of { color: #999 } }
"""


def why_page(why: Why, request: Request) -> str:
    """Return the page as HTML. `request`: as the model read it."""
    found = {one.cause.id: one for one in why.causes if one.cause.kind == "sentence"}
    shaded = "".join(_sentence(number, one, found) for number, one in enumerate(sentences_of(request), 1))
    rows = "".join(map(_row, why.causes))
    says = "".join(f"<p>{escape(said)}</p>" for said in why.says)
    part = why.answer[why.span.start : why.span.end]
    of = "" if part == why.answer else f"<p class=of>Explained: “{escape(part)}”</p>"
    took = f"{why.sentences} sentences of the prompt, {why.read_tokens} tokens read{'' if why.complete else ', not complete'}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Why it said that</title><style>{_STYLE}</style>"
        f"<h1>Why it said that</h1><blockquote>{escape(why.answer)}</blockquote>{of}{says}"
        f"<h2>What it was given</h2><blockquote>{shaded}</blockquote>"
        f"<h2>Figures</h2><table><tr><th>Without<th>the answer loses<th>by chance<th>it would have said</tr>{rows}</table>"
        f"<p class=of>{took}. A nat is a factor of e in the answer's probability.</p></html>"
    )


def _sentence(number: int, one: Sentence, found: dict[str, ProvedCause]) -> str:
    cause = found.get(str(number))
    if cause is None:
        return escape(one.text)
    depth = min(0.75, 0.15 + cause.nats / 20)
    text, space = one.text.rstrip(), one.text[len(one.text.rstrip()) :]
    return f'<mark style="--depth:{depth:.2f}" title="{cause.nats:.2f} nats">{escape(text)}</mark>{escape(space)}'


def _row(one: ProvedCause) -> str:
    chance = "" if one.by_chance is None else f"at most {one.by_chance.high:.2f} (n = {one.by_chance.n})"
    name = f"{one.cause.kind}: {one.cause.text or one.cause.id}"
    cells: Sequence[str] = (name, f"{one.nats:.2f} nats", chance, one.answer_without or "")
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>"
