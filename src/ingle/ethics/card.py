"""Cards of a model: clauses that only facts fill, as text, Markdown or a page.

To add one, put a file into ethics/cards. It holds `TITLE`, `SOURCE` (where the clauses stand), and `ITEMS`, each with a clause, what it
asks in our words, and the names of the facts that answer it (ethics/card_facts.py). So a card holds facts, and "not measured: run …"
where there are none; never a sentence about the model that nobody measured or stated, and never a judgement whether a law is met.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

from ingle.core import registry
from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.ethics.card_facts import FINDERS, CardFact, Origin, Sources, found, missing
from ingle.home.owner import OwnerUse

CARDS = "ingle.ethics.cards"
NOT_ADVICE = "Evidence for each clause, from this home's records. Not legal advice, and no statement that any clause is met."


@dataclass(frozen=True, slots=True)
class Clause:
    clause: str
    asks: str  # its demand, in our words
    facts: tuple[str, ...]  # names of the facts that answer it


@dataclass(frozen=True, slots=True)
class FilledClause:
    clause: str
    asks: str
    facts: tuple[CardFact, ...]
    missing: tuple[str, ...]  # facts that nobody measured or stated, and how to


@dataclass(frozen=True, slots=True)
class Card:
    kind: str
    title: str
    source: str
    model: str
    model_digest: str
    head_row: int  # newest fact of the ledger that it was made from
    head_hash: str
    items: tuple[FilledClause, ...]
    note: str = NOT_ADVICE

    @property
    def filled(self) -> float:
        """Share of the clauses with a fact at least."""
        return sum(bool(item.facts) for item in self.items) / len(self.items)

    @property
    def digest(self) -> str:
        """Digest of every word and number of it."""
        return digest_json(to_table(self))


def kinds() -> list[str]:
    """Return the names of all cards, as `--as` takes them."""
    return [name.replace("_", "-") for name in registry.names(CARDS)]


def card_file(kind: str) -> Any:
    """Return a card's file. Raises ConfigError with the cards there are."""
    registry.check_known(kind, kinds(), "--as")
    return registry.modules(CARDS)[kind.replace("-", "_")]


def fill(kind: str, sources: Sources) -> Card:
    """Return the card of that kind, filled. Raises ConfigError for an unknown kind."""
    file = card_file(kind)
    items = tuple(_filled(item, sources) for item in file.ITEMS)
    newest = sources.rows[0] if sources.rows else None
    head = (newest.seq, newest.hash) if newest else (0, "")
    return Card(kind, file.TITLE, file.SOURCE, sources.kept.name, sources.kept.digest, *head, items)


def _filled(item: Clause, sources: Sources) -> FilledClause:
    answers = {name: found(sources, name) for name in item.facts}
    facts = tuple(fact for some in answers.values() for fact in some)
    lacking = tuple(dict.fromkeys(missing(sources, name) for name, some in answers.items() if not some))
    return FilledClause(item.clause, item.asks, facts, lacking)


def known(name: str) -> bool:
    part, _, rest = name.partition(":")
    return part in FINDERS or (part == "measure" and bool(rest)) or (part == "stated" and rest in OwnerUse.__dataclass_fields__)


def differences(card: Mapping[str, Any], now: Card, rows: Mapping[int, str]) -> list[str]:
    """Return where a stored card says something else than the home does now, clause by clause: numbers, words, facts that came or went.

    `rows`: hashes of the ledger's facts, by number; a card may be older than its newest one.
    """
    ours: dict[str, Any] = to_table(now)
    card = _without_none(card)
    told = []
    for name in ("kind", "title", "source", "model", "model_digest", "note"):
        if card.get(name) != ours[name]:
            told.append(f"{name}: {card.get(name)!r}, not {ours[name]!r}")
    if card.get("head_row") not in rows or rows[card["head_row"]] != card.get("head_hash"):
        told.append("head: the ledger has no such row")
    theirs = {str(item.get("clause")): item for item in card.get("items", ()) if isinstance(item, Mapping)}
    order = [str(item.get("clause")) for item in card.get("items", ()) if isinstance(item, Mapping)]
    if order != [item["clause"] for item in ours["items"]]:
        told.append("clauses: they are not those of the card")
    for item in ours["items"]:
        if theirs.get(item["clause"]) != item:
            told.append(f"{item['clause']}: not what the records say now")
    extra = sorted(set(card) - set(ours))
    return told + [f"{name}: no part of a card" for name in extra]


def _without_none(value: Any) -> Any:
    """Return a plain table as `to_table` makes it: nothing and None are the same."""
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return {name: _without_none(item) for name, item in value.items() if item is not None} if isinstance(value, Mapping) else value


# Cards as text, Markdown and HTML. Every fact says where it stands; what is stated says so, and what is missing says how to get it.


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
