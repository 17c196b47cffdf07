"""`GET /v1/answers/ID/account`: the account of an answer, for whoever asked for it."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends

from ingle.app.replay import find_row
from ingle.core.config import to_table
from ingle.core.energy import energy_in
from ingle.core.errors import IngleError, NotKept
from ingle.ethics.answer_account import Account, Section, section
from ingle.home.deltas import get_delta
from ingle.home.examples import get_example
from ingle.home.kept import get_kept
from ingle.home.lessons import get_lesson
from ingle.home.owner import OwnerUse, owner_policy
from ingle.home.place import Home
from ingle.home.turns import find_any_completion
from ingle.ledger.chain import Ledger
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.service import Service

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.ledger.row import Row

router = APIRouter(route_class=Keyed)
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")


@router.get("/v1/answers/{id_}/account", tags=["answers"])
async def account(id_: str, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return the account of an answer, by its id or the number of its fact."""

    def made() -> Account:
        row = find_row(Ledger(service.engine, service.home.keys), id_)
        if str(row.values.get("key", "")) != who:
            raise NotKept("event", f"The ledger holds no answer {id_[:40]}", "", "`ingle log --kind answer` lists them.")
        return account_of(service.home, service.engine, row)

    return {"object": "account", **to_table(await asyncio.to_thread(made))}


def account_of(home: Home, engine: "Engine", row: "Row") -> Account:
    """Return the account of an answer's fact. What is gone is named as gone. Raises HomeError, LedgerError, ConfigError."""
    facts, ledger = row.values, Ledger(engine, home.keys)
    completion = str(facts.get("id", ""))
    turn = find_any_completion(engine, completion) if completion else None
    owner = str(facts.get("key", ""))
    told = [one for one in ledger.read(kind="guard") if completion and one.values.get("id") == completion]
    use = owner_policy(home.policy).use
    return Account(row.seq, row.hash, (
        section("The answer", (
            ("given", row.at), ("to", f"the key {owner}" if owner else "somebody on this machine, without a key"),
            ("id", completion),
            ("text", turn.message.text if turn else "not kept; the ledger has its digest"),
            ("digest of the text, keyed", facts.get("answer")),
            ("ended by", facts.get("finish")), ("tokens", facts.get("completion_tokens")), ("energy", energy_in(facts)),
        )),
        _model(home, row), _acted(engine, owner, facts), _guards(facts, told),
        section("How it was drawn", [(name, facts.get(name)) for name in _SAMPLING]),
        section("Proof", (
            ("row", f"{row.seq}, hash {row.hash}"), ("the same words again", f"ingle prove replay {row.seq}"),
            ("unchanged records", "ingle verify"),
            ("for somebody else", f"ingle prove attest {row.seq}"),
        )),
        _contest(use, owner, row.seq, turn is not None),
    ))  # fmt: skip


def _model(home: Home, row: "Row") -> Section:
    lines: list[tuple[str, object]] = [("name", row.subject), ("digest of model, deltas and format", row.values.get("model"))]
    try:
        kept = get_kept(home, row.subject)
        lines.append(("base", kept.base))
        for digest in kept.deltas:
            delta = get_delta(home, digest)
            lines.append((f"change {delta.name}", f"{delta.origin.get('command') or delta.kind} ({digest})"))
    except IngleError:
        lines.append(("now", "it is not kept here under this name any more"))
    return section("The model", lines)


def _acted(engine: "Engine", owner: str, facts: Mapping[str, Any]) -> Section:
    lines = list[tuple[str, object]]()
    for id_ in str(facts.get("memories") or "").split():
        try:
            lines.append((f"memory {id_}", get_example(engine, owner, id_).answer))
        except NotKept:
            lines.append((f"memory {id_}", "forgotten since"))
    for digest in str(facts.get("lessons") or "").split():
        try:
            lesson = get_lesson(engine, owner, digest)
            lines.append((f"lesson {digest[:12]}", f"learned from {', '.join(lesson.examples)}{'' if lesson.acting else '; undone since'}"))
        except NotKept:
            lines.append((f"lesson {digest[:12]}", "gone since"))
    return section("What was taught and acted", lines or [("nothing", "neither a memory nor a lesson acted")])


def _guards(facts: Mapping[str, Any], told: list["Row"]) -> Section:
    lines: list[tuple[str, object]] = [("what they said", facts.get("verdicts") or "nothing")]
    for row in told:
        values = row.values
        lines.append(
            (
                f"row {row.seq}",
                f"{values.get('guard')}: {row.kind.removeprefix('guard.')}, rule {values.get('rule')}, mode {values.get('mode')}",
            )
        )
    return section("Guards", lines)


def _contest(use: OwnerUse, owner: str, seq: int, kept: bool) -> Section:
    return section("How to contest it", (
        ("say what it should have been", "Correct it on the page, `ingle teach`, or POST /v1/feedback: the next answer knows it."),
        ("take back what was taught", "`ingle undo` or *undo* on the page; `ingle forget` deletes the words."),
        ("why it said that", f"ingle why {seq}" if kept else ""),
        ("a person to ask", use.contact or "not stated: use.contact in policy.toml"),
        ("who looks at answers", use.oversight),
    ))  # fmt: skip
