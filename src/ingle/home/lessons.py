"""Lessons: deltas that the learner made of users' examples, and whether they act. Their tensors lie among the home's deltas.

A lesson belongs to one owner and to one model with all its deltas, by their digest; so it says nothing to others, and nothing of another
model. The delta's origin names it as a lesson (`deltas.LESSON`). That it acts is one row, written in the same step as the states of
the examples that it holds: so a kill leaves both or neither.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ingle.core.errors import NotKept
from ingle.home.database import as_written, now, writing_for
from ingle.home.example_states import move, move_held
from ingle.home.recall_index import unindex_words

if TYPE_CHECKING:
    from sqlalchemy import Engine, Row

_COLUMNS = "digest, owner, model, stack, kind, examples, acting, seq, at"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson."""

    digest: str  # digest of its delta
    owner: str
    model: str  # name of the kept model that it was made for
    stack: str  # digest of that model's base and deltas; the lesson acts on nothing else
    kind: Literal["answers", "style"]  # `answers` act near their questions, a `style` wherever nothing nearer acts
    examples: tuple[str, ...]  # ids of its examples, in order
    acting: bool  # false once it was undone or replaced
    seq: int = 0  # its number among its owner's lessons, from 1
    at: str = ""


def accept_lesson(engine: "Engine", lesson: Lesson, instead_of: Sequence[str] = ()) -> Lesson:
    """Make a lesson act, its examples `learned`, and the lessons `instead_of` inactive, in one step.

    Accepting it again changes nothing. Raises NotKept, without a change, if an example was deleted meanwhile or is not being learned any
    more.
    """
    import sqlalchemy as sa

    of = {"owner": lesson.owner, "digest": lesson.digest}
    insert = f"INSERT INTO lessons ({_COLUMNS}) VALUES (:digest, :owner, :model, :stack, :kind, :examples, 1, :seq, :at)"
    again = "UPDATE lessons SET acting = 1 WHERE owner = :owner AND digest = :digest"
    with writing_for(engine, lesson.owner) as connection:
        if not connection.execute(sa.text(again), of).rowcount:
            last = connection.execute(sa.text("SELECT COALESCE(MAX(seq), 0) FROM lessons WHERE owner = :owner"), of).scalar()
            row = {"model": lesson.model, "stack": lesson.stack, "kind": lesson.kind, "examples": json.dumps(list(lesson.examples))}
            connection.execute(sa.text(insert), {**of, **row, "seq": int(last or 0) + 1, "at": now()})
        for other in instead_of:
            connection.execute(sa.text("UPDATE lessons SET acting = 0 WHERE owner = :owner AND digest = :other"), {**of, "other": other})
        for id_ in lesson.examples:
            if (state := move(connection, lesson.owner, id_, "accept", (), lesson.digest)) != "learned":
                raise NotKept(f"example {id_}", "is not kept here any more" if state is None else f"became {state} meanwhile")
    return get_lesson(engine, lesson.owner, lesson.digest)


def set_acting(engine: "Engine", owner: str, digest: str, acting: bool) -> Lesson:
    """Let a lesson act, with its examples `learned`, or act no more (`undone`), in one step. Raises NotKept if there is none."""
    import sqlalchemy as sa

    lesson = get_lesson(engine, owner, digest)
    of = {"owner": owner, "digest": digest, "acting": int(acting)}
    with writing_for(engine, owner) as connection:
        connection.execute(sa.text("UPDATE lessons SET acting = :acting WHERE owner = :owner AND digest = :digest"), of)
        for id_ in lesson.examples:
            move(connection, owner, id_, "act" if acting else "undo")
    return get_lesson(engine, owner, digest)


def retire_lesson(engine: "Engine", owner: str, digest: str) -> None:
    """Stop a lesson from acting. Its examples keep their states, because something newer says what they said."""
    import sqlalchemy as sa

    with writing_for(engine, owner) as connection:
        connection.execute(
            sa.text("UPDATE lessons SET acting = 0 WHERE owner = :owner AND digest = :digest"), {"owner": owner, "digest": digest}
        )


def dissolve_lesson(engine: "Engine", owner: str, digest: str, undone: Collection[str] = (), forgotten: Collection[str] = ()) -> int:
    """Remove a lesson that must not act as it is, with its `undone` and `forgotten` examples, in one step. The caller deletes its delta.

    Its other examples become `pending` and still name it, so that they are learned together again. `forgotten` ones are deleted. Returns
    how many are to be learned again.
    """
    import sqlalchemy as sa

    of = {"owner": owner, "digest": digest}
    with writing_for(engine, owner) as connection:
        for id_ in forgotten:
            connection.execute(sa.text("DELETE FROM examples WHERE owner = :owner AND id = :id"), {**of, "id": id_})
            unindex_words(connection, owner, id_)
        for id_ in undone:
            move(connection, owner, id_, "undo")
        connection.execute(sa.text("DELETE FROM lessons WHERE owner = :owner AND digest = :digest"), of)
        return move_held(connection, owner, digest, "relearn")


def drop_lesson(engine: "Engine", owner: str, digest: str) -> None:
    """Delete a lesson's row. The caller deletes its delta."""
    import sqlalchemy as sa

    with writing_for(engine, owner) as connection:
        connection.execute(sa.text("DELETE FROM lessons WHERE owner = :owner AND digest = :digest"), {"owner": owner, "digest": digest})


def get_lesson(engine: "Engine", owner: str, digest: str) -> Lesson:
    """Return the owner's lesson with that digest. Raises NotKept."""
    lessons = _select(engine, "owner = :owner AND digest = :digest", {"owner": owner, "digest": digest})
    if not lessons:
        raise NotKept(f"lesson {digest[:12]}", "is not kept here", "", "`ingle memory learned` shows what is.")
    return lessons[0]


def list_lessons(engine: "Engine", owner: str | None, stack: str = "", acting: bool | None = None) -> tuple[Lesson, ...]:
    """Return the owner's lessons (None = everybody's), the oldest first; filtered by the model's stack and by acting."""
    which, values = ["1 = 1"], dict[str, Any]()
    for name, value in (("owner", owner), ("stack", stack or None), ("acting", None if acting is None else int(acting))):
        if value is not None:
            which.append(f"{name} = :{name}")
            values[name] = value
    return _select(engine, " AND ".join(which), values)


def _select(engine: "Engine", which: str, values: dict[str, Any]) -> tuple[Lesson, ...]:
    import sqlalchemy as sa

    with engine.connect() as connection:
        return tuple(map(_lesson, connection.execute(sa.text(f"SELECT {_COLUMNS} FROM lessons WHERE {which} ORDER BY owner, seq"), values)))


def _lesson(row: "Row[Any]") -> Lesson:
    values = dict(row._mapping)
    with as_written(f"lesson {str(values['digest'])[:12]}"):
        return Lesson(**{**values, "examples": tuple(json.loads(values["examples"])), "acting": bool(values["acting"])})
