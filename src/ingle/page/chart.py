"""Held-out loss over a model's life: what the gate measured of everything that was to become a part of it, from the ledger."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingle.core.event import Fact
from ingle.core.maker import makers
from ingle.home.examples import list_examples
from ingle.home.lessons import list_lessons
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from ingle.ledger.row import Row

MOST = 200
"""Points that are shown, the newest."""
_LOOKED_AT = 2_000
"""Facts of the gate among which they are."""
_KINDS = ("gate", "lesson")


def loss_chart(engine: "Engine", keys: "Path", owner: str, model: str) -> dict[str, Any]:
    """The points, the oldest first, as the page draws them: bits per byte of held-out text with each candidate at work, and of the model
    as it was (`before`). Of lessons only the owner's; of what was tuned or imported everybody's, for it is everybody's model."""
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
    """Who made the candidate, by name and in words. A maker that is no longer installed keeps its name."""
    name = str(facts.get("maker", ""))
    known = makers().get(name)
    return {"maker": name, "what": known.noun if known else name}


def _personal(facts: Mapping[str, Fact]) -> bool:
    """Whether the candidate belongs to one user."""
    known = makers().get(str(facts.get("maker", "")))
    return known is not None and known.personal


def _mine(rows: Iterable["Row"], examples: Collection[str]) -> set[str]:
    """Digests of candidates that the learner made of these examples: one whose lesson is gone, or was never made, is in no table. The gate
    doesn't know whose a candidate is, but the learner says what became of it right behind it, and there is one learner in a home."""
    found, judged = set[str](), ""
    for row in rows:
        facts = row.values
        if row.kind.startswith("gate.") and _personal(facts):
            judged = str(facts.get("delta", ""))
        elif row.kind in ("lesson.accept", "lesson.refuse"):
            if facts.get("example") in examples:
                found.add(str(facts.get("lesson") or judged))
            judged = ""
    return found
