"""Held-out loss over a model's life: the gate's measurement of every candidate, from the ledger."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingle.core.makers import MAKERS
from ingle.core.report import Fact
from ingle.home.examples import list_examples
from ingle.home.lessons import list_lessons
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from ingle.ledger.row import Row

MOST = 200  # newest points that are shown
_LOOKED_AT = 2_000  # newest facts of each kind that are searched for them
_KINDS = ("gate", "lesson")


def loss_chart(engine: "Engine", keys: "Path", owner: str, model: str) -> dict[str, Any]:
    """Return the points of the chart, oldest first.

    `bits`: bits per byte of held-out text with the candidate at work; `before`: of the model without it. Lessons are the owner's only.
    Other candidates are everybody's, because they change everybody's model."""
    rows = sorted((row for kind in _KINDS for row in Ledger(engine, keys).read(kind, last=_LOOKED_AT)), key=lambda row: row.seq)
    lessons = list_lessons(engine, owner)
    examples = {one.id for one in list_examples(engine, owner)}
    acting = {one.digest for one in lessons if one.acting}
    mine = {one.digest for one in lessons} | _mine(rows, examples)
    return {"model": model, "points": _points(rows, model, mine, acting)[-MOST:]}


def _points(rows: Sequence["Row"], model: str, mine: Collection[str], acting: Collection[str]) -> list[dict[str, Any]]:
    points = []
    for row in rows:
        facts = row.values
        digest, bits = str(facts.get("delta", "")), facts.get("bits_after")
        if not row.kind.startswith("gate.") or not isinstance(bits, float) or model not in (row.subject, row.subject.rpartition("+")[0]):
            continue
        lesson = _personal(facts)
        if lesson and digest not in mine:
            continue
        state = "refused" if row.kind == "gate.refuse" else "undone" if lesson and digest not in acting else "accepted"
        before, rise = facts.get("bits_before"), facts.get("bits_rise_percent")
        points.append({"at": row.at, "bits": bits, "before": before, "rise": rise, "state": state, **_words(facts)})
    return points


def _words(facts: Mapping[str, Fact]) -> dict[str, str]:
    """Return the candidate's maker as name and noun. A maker that is no longer installed keeps its name."""
    name = str(facts.get("maker", ""))
    maker = MAKERS.get(name)
    return {"maker": name, "what": maker.noun if maker else name}


def _personal(facts: Mapping[str, Fact]) -> bool:
    """Whether the candidate belongs to one user."""
    maker = MAKERS.get(str(facts.get("maker", "")))
    return maker is not None and maker.personal


def _mine(rows: Iterable["Row"], examples: Collection[str]) -> set[str]:
    """Return the digests of candidates that the learner made of these examples, also of those whose lesson is in no table.
    The gate doesn't know the owner. But a home has one learner, and its own fact follows the gate's directly."""
    digests, judged = set[str](), ""
    for row in rows:
        facts = row.values
        if row.kind.startswith("gate.") and _personal(facts):
            judged = str(facts.get("delta", ""))
        elif row.kind in ("lesson.accept", "lesson.refuse"):
            if facts.get("example") in examples:
                digests.add(str(facts.get("lesson") or judged))
            judged = ""
    return digests
