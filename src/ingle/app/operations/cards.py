"""Cards of models, filled from a home's records."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ingle.app.house import House
from ingle.app.operation import About, Said, operation
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors
from ingle.core.report import Event
from ingle.engine.packs import kept_source, list_packs, open_weights
from ingle.ethics.card import FORMS, Card, FilledClause, as_text, differences, fill
from ingle.ethics.card_facts import KINDS, Sources
from ingle.home.base import read_base
from ingle.home.deltas import delta_report, get_delta
from ingle.home.kept import Kept
from ingle.home.owner import OwnerPolicy, owner_policy
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.table import counts_by_kind
from ingle.model.tensor import expected_shapes
from ingle.safety.guard import guard_files, guard_policy
from ingle.safety.policy import GuardPolicy, rule_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row


@dataclass(frozen=True, slots=True)
class CardAsked:
    """A card of a model."""

    name: Annotated[str, About("A model, or MODEL+DELTA.", "MODEL", placed=True)]
    kind: Annotated[str, About("model, data, energy, annex-iv, annex-xi, annex-xii, nist-rmf or iso-42001.", also=("--as",))] = "model"


@dataclass(frozen=True, slots=True)
class CardTold:
    """A card, with its digest."""

    object: str
    digest: str
    kind: str
    title: str
    source: str
    model: str
    model_digest: str
    head_row: int
    head_hash: str
    items: tuple[FilledClause, ...]
    note: str


def _card(told: CardTold) -> Card:
    return Card(**{one.name: getattr(told, one.name) for one in fields(Card)})


def _written(form: Callable[[Card], str], told: CardTold) -> str:
    return form(_card(told))


@operation(
    "prove card", "GET /v1/models/{name:path}/card", says=lambda told: as_text(_card(told)).splitlines(),
    forms={suffix: partial(_written, form) for suffix, form in FORMS.items()},
)  # fmt: skip
def card(house: House, asked: CardAsked) -> CardTold:
    """Fill a card of a model from what was measured and recorded.

    Every number is measured or recorded, and names its row in the ledger and its digests. What the owner states in policy.toml says so.
    What nobody measured says how to. No sentence is written by a model, and no card says that a law is met. Counts of everybody's requests
    need the right to `/metrics`.

    Examples:
        ingle prove card smollm2
        ingle prove card smollm2+fair --as annex-xi
        ingle prove card smollm2 --as energy --out energy.html
    """
    found = card_of(house.home, house.engine, house.model(asked.name), asked.kind, house.sees_all)
    return CardTold("card", found.digest, **{one.name: getattr(found, one.name) for one in fields(Card)})


@dataclass(frozen=True, slots=True)
class OldCard:
    """A card that was written earlier."""

    file: Annotated[Path, About("A card in JSON: `ingle prove card MODEL --out FILE.json` wrote it.", "FILE", placed=True)]


@dataclass(frozen=True, slots=True)
class CheckedCard:
    """How a card differs from the records of now."""

    model: str
    kind: str
    differs: tuple[str, ...]


def _says_checked(told: CheckedCard) -> Iterable[Said]:
    return told.differs or ("It says what the records say.",)


@operation("prove check", right="owner", says=_says_checked, code=lambda told: bool(told.differs))
def check(house: House, asked: OldCard) -> CheckedCard:
    """Compare a card with the records of now.

    Clause by clause: numbers, words, facts that came or went. Exit code 1 if anything differs.

    Examples:
        ingle prove check card.json
    """
    table = _read(asked.file)
    now = card_of(house.home, house.engine, house.model(table["model"]), table["kind"])
    return CheckedCard(now.model, now.kind, tuple(differences(table, now, hashes(house.engine, house.home))))


def _read(path: Path) -> dict[str, Any]:
    """Return a card in a file. Raises ConfigError."""
    with os_errors(path):
        text = path.read_bytes()
    try:
        table = json.loads(text)
        digest = table.pop("digest")
        assert table.pop("object") == "card" and all(isinstance(one, str) for one in (digest, table["model"], table["kind"]))
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise ConfigError(str(path), "must be a card that `ingle prove card --out FILE.json` wrote", type(error).__name__) from error
    return dict(table)


def hashes(engine: "Engine", home: Home) -> dict[int, str]:
    """Return the hashes of the facts that cards are made of, by number."""
    return {0: "", **{row.seq: row.hash for row in rows_of(Ledger(engine, home.keys))}}


def card_of(home: Home, engine: "Engine", kept: Kept, kind: str, counted: bool = True) -> Card:
    """Return a card of a kept model; `counted`: with how often what happened in this home.

    Raises ConfigError for an unknown kind and a policy that can't be read, HomeError, LedgerError.
    """
    return fill(kind, sources_of(home, engine, kept, counted))


def sources_of(home: Home, engine: "Engine", kept: Kept, counted: bool = True) -> Sources:
    """Return all that cards of a model are filled from. The owner's policy is recorded first, if it has changed."""
    ledger, owner, guards = Ledger(engine, home.keys), owner_policy(home.policy), guard_policy(home.policy)
    record_policy(ledger, owner, guards)
    checkpoint = open_weights(home, kept)
    source = kept_source(home, kept)
    rules = guards.rules(kept.name)
    modes = {file.name: rule_of(rules, file.name, file.modes).mode for file in guard_files()}
    deltas = [(get_delta(home, digest), delta_report(home, digest) or {}) for digest in kept.deltas]
    return Sources(
        kept, read_base(home, kept.base), deltas, checkpoint.config,
        sum(math.prod(shape) for shape in expected_shapes(checkpoint.config).values()), [pack.format for pack in list_packs(source)], owner,
        modes, enforced(owner, guards, kept.name), rows_of(ledger), counts_by_kind(engine) if counted else None,
    )  # fmt: skip


def rows_of(ledger: Ledger) -> list["Row"]:
    """Return the facts that cards are made of, the newest first."""
    rows = {row.seq: row for kind in KINDS for row in ledger.read(kind=kind)}
    return [rows[seq] for seq in sorted(rows, reverse=True)]


def enforced(owner: OwnerPolicy, guards: GuardPolicy, model: str) -> Sequence[str]:
    """Return the forbidden uses that a guard of the same topic tells of or blocks."""
    rule = guards.rules(model).get("topics")
    if rule is None or rule.mode == "off":
        return ()
    named = {topic.name.lower() for topic in rule.topics}
    return [use for use in owner.use.forbidden if use.lower() in named]


def record_policy(ledger: Ledger, owner: OwnerPolicy, guards: GuardPolicy) -> None:
    """Record the owner's policy if it is another one than the last recorded. Digests only: what is stated stays in the file."""
    facts = {"digest": owner.digest, "guards": guards.digest}
    last = next(iter(ledger.read(kind="policy", last=1)), None)
    if last is None or {name: last.values.get(name) for name in facts} != facts:
        ledger.append(Event("policy", "", {**facts, "forbidden": len(owner.use.forbidden), "answers_days": owner.retention.answers_days}))
