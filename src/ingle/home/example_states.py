"""The states of an example, and the moves between them. Only this file writes a state.

On its way into the weights an example is `pending`, then `learning` (begin), then `learned` (accept) or `refused` (refuse). A learner
that stops or dies releases it (release). When a lesson is removed, or its model changes, its examples are learned again (relearn).
The states: `ingle.core.example.STATES`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ingle.core.errors import NotKept
from ingle.core.example import STATES, Example, State
from ingle.home.database import writing_for

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Move = Literal["begin", "accept", "refuse", "release", "separate", "relearn", "supersede", "undo", "act", "renew", "keep"]
# States of an example that still counts: it was neither replaced nor undone.
COUNTING: tuple[State, ...] = ("pending", "learning", "learned", "refused", "kept")


@dataclass(frozen=True, slots=True)
class StateStep:
    """One move: its states before and after."""

    before: tuple[State, ...]
    after: State
    leaves_lesson: bool = False  # whether the example no longer names its former lesson, and so is learned by itself


# `separate`: a lesson of several was refused, so each is learned by itself. `act`: the lesson that holds it acts again. `renew` and `keep`:
# its words are other ones, or it counts again and no lesson holds it; the weights are to learn it, or not.
MOVES: Mapping[Move, StateStep] = {
    "begin": StateStep(("pending", "refused"), "learning"),
    "accept": StateStep(("learning", "learned"), "learned"),
    "refuse": StateStep(("learning",), "refused"),
    "release": StateStep(("learning",), "pending"),
    "separate": StateStep(("learning",), "pending", leaves_lesson=True),
    "relearn": StateStep(("learning", "learned"), "pending"),
    "supersede": StateStep(COUNTING, "superseded"),
    "undo": StateStep(COUNTING, "undone"),
    "act": StateStep(STATES, "learned"),
    "renew": StateStep(STATES, "pending", leaves_lesson=True),
    "keep": StateStep(STATES, "kept", leaves_lesson=True),
}


def move(
    connection: "Connection", owner: str, id_: str, what: Move, reasons: Sequence[str] = (), lesson: str | None = None
) -> State | None:
    """Make a move in a transaction, if the example's state allows it; `lesson` is the digest of its new lesson.

    Returns the state afterwards; None = there is no such example.
    """
    import sqlalchemy as sa

    step, of = MOVES[what], {"owner": owner, "id": id_}
    lesson = "" if step.leaves_lesson else lesson
    values = of | {"state": step.after, "reasons": json.dumps(list(reasons))} | ({} if lesson is None else {"lesson": lesson})
    also = "" if lesson is None else ", lesson = :lesson"
    statement = f"UPDATE examples SET state = :state, reasons = :reasons{also} WHERE owner = :owner AND id = :id AND state IN {_in(step)}"
    if connection.execute(sa.text(statement), values).rowcount:
        return step.after
    return connection.execute(sa.text("SELECT state FROM examples WHERE owner = :owner AND id = :id"), of).scalar()


def move_all(engine: "Engine", owner: str, ids: Iterable[str], what: Move) -> None:
    """Make the same move with several examples in one transaction. One in another state stays as it is. Raises NotKept if one is gone."""
    with writing_for(engine, owner) as connection:
        for id_ in ids:
            if move(connection, owner, id_, what) is None:
                raise NotKept(f"example {id_}", "is not kept here any more")


def move_held(connection: "Connection", owner: str, lesson: str, what: Move) -> int:
    """Make a move with all examples of a lesson whose states allow it. Returns how many there were."""
    import sqlalchemy as sa

    step = MOVES[what]
    statement = f"UPDATE examples SET state = :state WHERE owner = :owner AND lesson = :lesson AND state IN {_in(step)}"
    return connection.execute(sa.text(statement), {"owner": owner, "lesson": lesson, "state": step.after}).rowcount


def end_learning(
    engine: "Engine", owner: str, ids: Iterable[str], what: Literal["refuse", "release", "separate"], reasons: Sequence[str] = ()
) -> None:
    """End the `learning` of these examples. One that was deleted or changed meanwhile stays as it is."""
    with writing_for(engine, owner) as connection:
        for id_ in ids:
            move(connection, owner, id_, what, reasons)


def restore(engine: "Engine", owner: str, examples: Collection[Example]) -> None:
    """Undo a supersede, because the replacement does not stand: the examples get their states back."""
    import sqlalchemy as sa

    statement = "UPDATE examples SET state = :state, reasons = :reasons WHERE owner = :owner AND id = :id AND state = 'superseded'"
    with writing_for(engine, owner) as connection:
        for one in examples:
            values = {"state": one.state, "reasons": json.dumps(list(one.reasons)), "owner": owner, "id": one.id}
            connection.execute(sa.text(statement), values)


def _in(step: StateStep) -> str:
    return "(" + ", ".join(f"'{state}'" for state in step.before) + ")"
