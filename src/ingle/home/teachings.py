"""What was taught, as the page asks for it: about the answers of one conversation, by id, and whether anything is different by now."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ingle.core.example import Example
from ingle.home.examples import select_examples
from ingle.home.recall_index import likeness, sameness

if TYPE_CHECKING:
    from sqlalchemy import Engine

_AT_ONCE = 500
"""Values in one query: databases have a limit."""


def examples_about(engine: "Engine", owner: str, completions: Iterable[str]) -> tuple[Example, ...]:
    """The owner's ratings and corrections of these answers, the oldest first; not what a later one stands in the place of."""
    return _among(engine, owner, "completion", completions, "kind <> 'fact' AND state <> 'superseded'")


def examples_called(engine: "Engine", owner: str, ids: Iterable[str]) -> tuple[Example, ...]:
    """The owner's examples of these ids, as far as they are kept."""
    return _among(engine, owner, "id", ids, "1 = 1")


def remembered_facts(engine: "Engine", owner: str, texts: Iterable[str]) -> tuple[Example, ...]:
    """The owner's facts that say one of these texts, but for case, spaces and punctuation."""
    said = list(texts)
    found = _among(engine, owner, "asked", map(likeness, said), "kind = 'fact' AND state = 'kept'")
    same = set(map(sameness, said))
    return tuple(one for one in found if sameness(one.answer) in same)


def change_mark(engine: "Engine", owner: str) -> str:
    """Is another text once an example of the owner's came, went or moved on, or a lesson did, or consent: reads no words."""
    import sqlalchemy as sa

    of = {"owner": owner}
    examples = "SELECT state, COUNT(*), SUM(seq) FROM examples WHERE owner = :owner GROUP BY state ORDER BY state"
    lessons = "SELECT COUNT(*), SUM(seq), SUM(acting) FROM lessons WHERE owner = :owner"
    consents = "SELECT learn FROM consents WHERE owner = :owner"
    with engine.connect() as connection:
        rows = [row for query in (examples, lessons, consents) for row in connection.execute(sa.text(query), of)]
    return repr([tuple(row) for row in rows])


def _among(engine: "Engine", owner: str, column: str, values: Iterable[str], which: str) -> tuple[Example, ...]:
    wanted: Sequence[str] = sorted({value for value in values if value})
    found = list[Example]()
    for at in range(0, len(wanted), _AT_ONCE):
        names = {f"value{i}": value for i, value in enumerate(wanted[at : at + _AT_ONCE])}
        among = ", ".join(f":{name}" for name in names)
        found += select_examples(engine, f"owner = :owner AND {column} IN ({among}) AND {which}", {**names, "owner": owner})
    return tuple(sorted(found, key=lambda one: one.seq))
