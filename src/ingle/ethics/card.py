"""The contract of a card. To add one, put a file into ethics/cards.

The file holds `TITLE`, `SOURCE` (where the clauses stand), and `ITEMS`, each with a clause, what it asks in our words, and the names of
the facts that answer it (ethics/facts.py). So a card holds facts, and "not measured: run …" where there are none; never a sentence about
the model that nobody measured or stated, and never a judgement whether a law is met.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingle.core import registry
from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.ethics.facts import FINDERS, CardFact, Sources, found, missing
from ingle.home.owner import OwnerUse

CARDS = "ingle.ethics.cards"
NOT_ADVICE = "Evidence for each clause, from this home's records. Not legal advice, and no statement that any clause is met."


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause."""

    clause: str
    asks: str  # its demand, in our words
    facts: tuple[str, ...]  # names of the facts that answer it


@dataclass(frozen=True, slots=True)
class FilledClause:
    """One clause with its facts."""

    clause: str
    asks: str
    facts: tuple[CardFact, ...]
    missing: tuple[str, ...]  # facts that nobody measured or stated, and how to


@dataclass(frozen=True, slots=True)
class Card:
    """A card of one model."""

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
    """Return whether cards may ask for facts of that name."""
    part, _, rest = name.partition(":")
    return part in FINDERS or (part == "measure" and bool(rest)) or (part == "stated" and rest in OwnerUse.__dataclass_fields__)


def differences(card: Mapping[str, Any], now: Card, rows: Mapping[int, str]) -> list[str]:
    """Return where a stored card says something else than the home does now, clause by clause: numbers, words, facts that came or went.

    `rows`: hashes of the ledger's facts, by number; a card may be older than its newest one.
    """
    ours: dict[str, Any] = to_table(now)
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
