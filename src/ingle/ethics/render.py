"""Cards as text, Markdown and HTML. Every fact says where it stands; what is stated says so, and what is missing says how to get it."""

from collections.abc import Mapping
from html import escape
from types import MappingProxyType

from ingle.core.errors import ConfigError
from ingle.ethics.card import Card, FilledClause
from ingle.ethics.facts import CardFact, Origin

_STANDS: Mapping[Origin, str] = MappingProxyType({
    "measured": "measured", "recorded": "recorded", "kept": "read from what is kept", "stated": "stated by the owner, unchecked",
})  # fmt: skip
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem .3rem 0; vertical-align: top }
td { border-top: 1px solid #ddd }
.of { color: #666; font-size: .9em }
.no { color: #8a4b00 }
code { font-size: .9em; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd } td { border-color: #444 } .of { color: #999 } .no { color: #e0a050 }
}
"""


def shown(fact: CardFact) -> str:
    """Return a fact's value with unit, interval and n."""
    value = f"{fact.value:,}" if isinstance(fact.value, int) else f"{fact.value:.4g}" if isinstance(fact.value, float) else fact.value
    text = f"{value} {fact.unit}".strip()
    if fact.low is not None and fact.high is not None:
        text += f" ({fact.low:.4g} … {fact.high:.4g}{f', n = {fact.n:,}' if fact.n else ''})"
    return text


def stands(fact: CardFact) -> str:
    """Return where a fact stands: row and hash, digests, day."""
    parts = [_STANDS[fact.origin]]
    if fact.row is not None:
        parts.append(f"row {fact.row} {fact.row_hash[:12]}")
    parts += [f"{of} {digest[:12]}" for of, digest in fact.digests.items()]
    return ", ".join([*parts, *([fact.at[:10]] if fact.at else [])])


def as_text(card: Card) -> str:
    """Return a card for a terminal."""
    lines = [card.title, f"{card.model}  {card.model_digest}", card.note, f"Source: {card.source}.", ""]
    for item in card.items:
        lines.append(f"{item.clause}  {item.asks}")
        lines += [f"    {fact.name}: {shown(fact)}  [{stands(fact)}]" for fact in item.facts]
        lines += [f"    – {text}" for text in item.missing]
    lines += ["", _foot(card)]
    return "\n".join(lines)


def as_markdown(card: Card) -> str:
    """Return a card as Markdown."""
    lines = [f"# {card.title}", "", f"`{card.model}` `{card.model_digest}`", "", card.note, "", f"Source: {card.source}.", ""]
    for item in card.items:
        lines += [f"## {item.clause}", "", f"*{item.asks}*", ""]
        lines += [f"- {_plain(fact.name)}: {_plain(shown(fact))} ({_plain(stands(fact))})" for fact in item.facts]
        lines += [f"- {_plain(text)}" for text in item.missing] + [""]
    return "\n".join([*lines, _foot(card), ""])


def as_html(card: Card) -> str:
    """Return a card as a page in one file."""
    title = f"{escape(card.title)}: {escape(card.model)}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    return f"{head}<h1>{escape(card.title)}</h1>{card_table(card)}</html>"


def card_table(card: Card) -> str:
    """Return a card's clauses as HTML, for a page."""
    rows = "".join(map(_row, card.items))
    about = f"<p>{escape(card.model)} <code>{card.model_digest}</code></p><p>{escape(card.note)}</p>"
    about += f"<p class=of>Source: {escape(card.source)}.</p>"
    return f"{about}<table><tr><th>Clause<th>Facts</tr>{rows}</table><p class=of>{escape(_foot(card))}</p>"


FORMS = MappingProxyType({".md": as_markdown, ".html": as_html, ".txt": as_text})  # by the ending of a file's name


def form_of(suffix: str) -> str:
    """Return the suffix if cards can be written so. Raises ConfigError."""
    if suffix not in (*FORMS, ".json"):
        raise ConfigError("--out", f"must end in {', '.join(FORMS)} or .json", suffix or "nothing")
    return suffix


def _foot(card: Card) -> str:
    filled = f"{sum(bool(item.facts) for item in card.items)} of {len(card.items)} clauses have a fact."
    return f"{filled} Made from the ledger up to row {card.head_row} {card.head_hash[:12]}; digest {card.digest}."


def _row(item: FilledClause) -> str:
    facts = "".join(
        f"<div>{escape(fact.name)}: {escape(shown(fact))} <span class=of>{escape(stands(fact))}</span></div>" for fact in item.facts
    )
    lacking = "".join(f"<div class=no>{escape(text)}</div>" for text in item.missing)
    return f"<tr><td><b>{escape(item.clause)}</b><br><span class=of>{escape(item.asks)}</span><td>{facts}{lacking}</tr>"


def _plain(text: str) -> str:
    """Return a text whose characters mean nothing in Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!" else c for c in text)
