"""Undo: what was learned acts no more, from the next answer on, and the model is bit for bit what it was before.

A lesson that learned from nothing else only stops acting, and can be let act again (`redo`). One that learned from several is let go, and
learned anew from the log without what was undone; until then memory stands in for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.errors import NotKept
from ingle.core.event import Event, Sink
from ingle.core.example import Example
from ingle.home.example_states import COUNTING, move_all
from ingle.home.examples import list_examples
from ingle.home.lessons import Lesson, dissolve_lesson, list_lessons, retire_lesson, set_acting
from ingle.home.place import Home
from ingle.home.recall_index import sameness
from ingle.home.staging import discard

if TYPE_CHECKING:
    from sqlalchemy import Engine

_CURE = "`ingle learn --list` shows what was learned."


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back."""

    examples: tuple[Example, ...]
    """As they were before, the newest first."""
    again: int = 0
    """How many others are to be learned again, because a lesson held them together with these."""
    back: tuple[str, ...] = ()
    """Ids of earlier corrections that count again, since what superseded them is undone."""


def undo(home: Home, engine: "Engine", owner: str, which: int | str = 1, sink: Sink = lambda _: None) -> Undone:
    """Takes back the last `which` things that were learned, or the one of that id, or all that the lesson of that digest holds (the first
    digits of either will do).

    Raises NotKept if nothing was learned, or nothing is called so.
    """
    learned = list_examples(engine, owner, ["learned"], newest=True)
    lessons = {lesson.digest: lesson for lesson in list_lessons(engine, owner)}
    chosen = learned[:which] if isinstance(which, int) else _called(which, learned)
    if isinstance(which, int) and which > len(learned) > 0:
        raise NotKept("undo", f"Only {len(learned)} can be undone", f"asked for {which}", _CURE)
    if not chosen:
        raise NotKept(
            "undo", "There is nothing to undo" if isinstance(which, int) else f"Nothing that was learned has the id {which[:40]}", "", _CURE
        )
    for one in chosen:  # the fact first: nothing is taken back that nobody can account for
        sink(Event("undo", one.model, {"example": one.id, "kind": one.kind, "lesson": one.lesson}))
    again = 0
    for digest in dict.fromkeys(one.lesson for one in chosen):
        held = [one for one in chosen if one.lesson == digest]
        lesson = lessons.get(digest)
        if lesson is not None and _alone(lesson, held):
            set_acting(engine, owner, digest, False)
        else:
            again += dissolve_lesson(engine, owner, digest, [one.id for one in held])
            discard(home, home.delta_folder(digest))
    return Undone(tuple(chosen), again, bring_back(home, engine, owner, chosen, lessons))


def redo(home: Home, engine: "Engine", owner: str, id_: str, sink: Sink = lambda _: None) -> Example:
    """Lets what was undone count again: its lesson acts as it did if it is still here, else it is to be learned again.

    Raises NotKept if nothing of that id was undone.
    """
    found = _called(id_, list_examples(engine, owner, ["undone"]))
    if len(found) != 1:
        raise NotKept("redo", f"Nothing that was undone has the id {id_[:40]}", "", _CURE)
    [one] = found
    others = [other for other in _standing(engine, owner) if one.kind == other.kind == "correction" and _key(other) == _key(one)]
    if any(other.seq > one.seq for other in others):
        raise NotKept("redo", f"The question of {id_[:40]} has a newer answer now", "", "Undo or forget the newer one first.")
    sink(Event("redo", one.model, {"example": one.id, "kind": one.kind, "lesson": one.lesson}))
    older = {other.id for other in others}  # what counted again while this was undone
    move_all(engine, owner, older, "supersede")
    for held in list_lessons(engine, owner, acting=True):
        if set(held.examples) <= older:
            retire_lesson(engine, owner, held.digest)
    lesson = next((old for old in list_lessons(engine, owner) if old.digest == one.lesson), None)
    if lesson is not None and lesson.examples == (one.id,) and home.delta_folder(lesson.digest).is_dir():
        set_acting(engine, owner, lesson.digest, True)
    else:
        move_all(engine, owner, [one.id], "renew")
    return one


def _called(name: str, examples: Sequence[Example]) -> list[Example]:
    """Those of that id or that lesson. Raises NotKept if several ids begin so."""
    if not name:
        return []
    by_id = [one for one in examples if one.id.startswith(name) or one.id.removeprefix("ex-").startswith(name)]
    if len(by_id) > 1:
        raise NotKept("example", f"{len(by_id)} examples have an id that begins with {name[:40]}", "", "Give more of its id.")
    found = [one for one in examples if one.lesson.startswith(name)]
    if not by_id and len({one.lesson for one in found}) > 1:
        raise NotKept("lesson", f"Several lessons have a digest that begins with {name[:40]}", "", "Give more of its digest.")
    return by_id or found


def _alone(lesson: Lesson, held: Sequence[Example]) -> bool:
    return set(lesson.examples) == {one.id for one in held}


def _standing(engine: "Engine", owner: str) -> tuple[Example, ...]:
    """All that counts."""
    return list_examples(engine, owner, COUNTING)


def _key(one: Example) -> tuple[str, str]:
    """Model, and question as it is compared."""
    return one.model, sameness(one.question)


def bring_back(home: Home, engine: "Engine", owner: str, gone: Sequence[Example], lessons: dict[str, Lesson]) -> tuple[str, ...]:
    """Lets the newest earlier answer to each question count again whose answer is gone (undone or forgotten): before was before."""
    superseded = list_examples(engine, owner, ["superseded"], newest=True)
    standing, found = set(map(_key, _standing(engine, owner))), list[str]()
    for one in gone:
        key, said = _key(one), sameness(one.answer)
        if one.kind != "correction" or key in standing:
            continue
        earlier = (old for old in superseded if _key(old) == key and old.seq < one.seq)
        before = next((old for old in earlier if sameness(old.answer) != said), None)  # the same words again would be no going back
        if before is None:
            continue
        standing.add(key)
        lesson = lessons.get(before.lesson)
        if lesson is not None and lesson.examples == (before.id,) and home.delta_folder(lesson.digest).is_dir():
            set_acting(engine, owner, lesson.digest, True)
        else:
            move_all(engine, owner, [before.id], "renew" if before.learn else "keep")
        found.append(before.id)
    return tuple(found)
