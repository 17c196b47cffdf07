"""Opens a home's records for a card, and `GET /v1/models/NAME/card`."""

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query

from ingle.core.config import to_table
from ingle.core.report import Event
from ingle.engine.packs import kept_source, list_packs, open_weights
from ingle.ethics.card import Card, fill
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
from ingle.serve.auth import Keyed, sees_everybody, service_of
from ingle.serve.service import Service

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

router = APIRouter(route_class=Keyed)


@router.get("/v1/models/{name:path}/card", tags=["models"])
async def card(
    name: str, kind: Annotated[str, Query(alias="as", max_length=40)] = "model",
    service: Service = Depends(service_of), all_: bool = Depends(sees_everybody),  # noqa: B008 - FastAPI's way
) -> dict[str, Any]:  # fmt: skip
    """Return a card of a model: facts with their rows and digests, and what nobody measured. Counts of everybody's requests need the
    right to `/metrics`."""

    def made() -> Card:
        kept = service.models.kept(name)
        return card_of(service.home, service.engine, kept, kind, all_)

    table = await asyncio.to_thread(made)
    return {"object": "card", "digest": table.digest, **to_table(table)}


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
