"""Queries of the page about taught examples: those of one conversation's answers, by id, and whether anything has changed."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ingle.core.example import Example
from ingle.home.examples import select_examples
from ingle.home.recall_index import likeness, sameness

if TYPE_CHECKING:
    from sqlalchemy import Engine

_AT_ONCE = 500  # values in one query, because databases have a limit


def examples_about(engine: "Engine", owner: str, completions: Iterable[str]) -> tuple[Example, ...]:
    """Return the owner's ratings and corrections of these answers, the oldest first, without superseded ones."""
    return _among(engine, owner, "completion", completions, "kind <> 'fact' AND state <> 'superseded'")


def examples_called(engine: "Engine", owner: str, ids: Iterable[str]) -> tuple[Example, ...]:
    """Return the owner's kept examples with these ids."""
    return _among(engine, owner, "id", ids, "1 = 1")


def remembered_facts(engine: "Engine", owner: str, texts: Iterable[str]) -> tuple[Example, ...]:
    """Return the owner's facts that say one of these texts, ignoring case, spaces and punctuation."""
    text_list = list(texts)
    facts = _among(engine, owner, "asked", map(likeness, text_list), "kind = 'fact' AND state = 'kept'")
    same = set(map(sameness, text_list))
    return tuple(one for one in facts if sameness(one.answer) in same)


def change_mark(engine: "Engine", owner: str) -> str:
    """Return a text that changes with the owner's examples, lessons and consent; reads no words."""
    import sqlalchemy as sa

    of = {"owner": owner}
    examples = "SELECT state, COUNT(*), SUM(seq) FROM examples WHERE owner = :owner GROUP BY state ORDER BY state"
    lessons = "SELECT COUNT(*), SUM(seq), SUM(acting) FROM lessons WHERE owner = :owner"
    consents = "SELECT learn FROM consents WHERE owner = :owner"
    with engine.connect() as connection:
        rows = [row for query in (examples, lessons, consents) for row in connection.execute(sa.text(query), of)]
    return repr([tuple(row) for row in rows])


def _among(engine: "Engine", owner: str, column: str, values: Iterable[str], which: str) -> tuple[Example, ...]:
    distinct: Sequence[str] = sorted({value for value in values if value})
    examples = list[Example]()
    for start in range(0, len(distinct), _AT_ONCE):
        names = {f"value{i}": value for i, value in enumerate(distinct[start : start + _AT_ONCE])}
        among = ", ".join(f":{name}" for name in names)
        examples += select_examples(engine, f"owner = :owner AND {column} IN ({among}) AND {which}", {**names, "owner": owner})
    return tuple(sorted(examples, key=lambda one: one.seq))
