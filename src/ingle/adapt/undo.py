"""Undo: ends what was learned, or what was only remembered. From the next answer on, the model is bit for bit what it was before.

A lesson of the undone examples alone only stops acting, and `redo` lets it act again. A lesson of others too is dropped and learned
again without the undone ones; until then, memories stand in for the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ingle.core.errors import NotKept
from ingle.core.example import Example
from ingle.core.report import Event, Sink
from ingle.home.example_states import COUNTING, move_all
from ingle.home.examples import list_examples
from ingle.home.lessons import Lesson, dissolve_lesson, list_lessons, retire_lesson, set_acting
from ingle.home.place import Home
from ingle.home.recall_index import sameness
from ingle.home.staging import discard

if TYPE_CHECKING:
    from sqlalchemy import Engine

_CURE = "`ingle memory learned` shows what was learned."


@dataclass(frozen=True, slots=True)
class Undone:
    """The outcome of an undo."""

    examples: tuple[Example, ...]  # the undone examples as they were before, newest first
    again: int = 0  # number of other examples that are learned again, because a lesson held them together with these
    back: tuple[str, ...] = ()  # ids of earlier corrections that count again, because their successor is undone


def undo(home: Home, engine: "Engine", owner: str, which: int | str = 1, sink: Sink = lambda _: None) -> Undone:
    """Undo the last `which` examples that count, learned or only remembered so far, the one of that id, or all of the lesson of that digest
    (or its first digits). Raises NotKept if nothing was taught, or nothing has that id or digest.
    """
    counting = list_examples(engine, owner, COUNTING, newest=True)
    lessons = {lesson.digest: lesson for lesson in list_lessons(engine, owner)}
    if isinstance(which, int):
        if which > len(counting) > 0:
            raise NotKept("undo", f"Only {len(counting)} can be undone", f"asked for {which}", _CURE)
        chosen, nothing = list(counting[:which]), "There is nothing to undo"
    else:
        learned = [one for one in counting if one.state == "learned"]
        chosen = _called(which, learned) or _with_id(which, counting)
        nothing = f"Nothing that was learned or remembered has the id {which[:40]}"
    if not chosen:
        raise NotKept("undo", nothing, "", _CURE)
    for one in chosen:  # the fact first: nothing is undone without a record
        sink(Event("undo", one.model, {"example": one.id, "kind": one.kind, "lesson": one.lesson}))
    move_all(engine, owner, [one.id for one in chosen if one.state != "learned"], "undo")
    again = 0
    for digest in dict.fromkeys(one.lesson for one in chosen if one.state == "learned"):
        held = [one for one in chosen if one.lesson == digest]
        lesson = lessons.get(digest)
        if lesson is not None and _alone(lesson, held):
            set_acting(engine, owner, digest, False)
        else:
            again += dissolve_lesson(engine, owner, digest, [one.id for one in held])
            discard(home, home.delta_folder(digest))
    return Undone(tuple(chosen), again, bring_back(home, engine, owner, chosen, lessons))


def redo(home: Home, engine: "Engine", owner: str, id_: str, sink: Sink = lambda _: None) -> Example:
    """Let an undone example count again. Its lesson acts again if it is still here; else the example is learned again.

    Raises NotKept if nothing of that id was undone.
    """
    matches = _called(id_, list_examples(engine, owner, ["undone"]))
    if len(matches) != 1:
        raise NotKept("redo", f"Nothing that was undone has the id {id_[:40]}", "", _CURE)
    [one] = matches
    others = [other for other in _standing(engine, owner) if one.kind == other.kind == "correction" and _key(other) == _key(one)]
    if any(other.seq > one.seq for other in others):
        raise NotKept("redo", f"The question of {id_[:40]} has a newer answer now", "", "Undo or forget the newer one first.")
    sink(Event("redo", one.model, {"example": one.id, "kind": one.kind, "lesson": one.lesson}))
    older = {other.id for other in others}  # they counted again while this was undone
    move_all(engine, owner, older, "supersede")
    for held in list_lessons(engine, owner, acting=True):
        if set(held.examples) <= older:
            retire_lesson(engine, owner, held.digest)
    lesson = next((old for old in list_lessons(engine, owner) if old.digest == one.lesson), None)
    if lesson is not None and lesson.examples == (one.id,) and home.delta_folder(lesson.digest).is_dir():
        set_acting(engine, owner, lesson.digest, True)
    else:
        move_all(engine, owner, [one.id], _back(one))
    return one


def undone_last(engine: "Engine", owner: str, undone: Iterable[str]) -> str:
    """Return the id of what was undone last and still is. `undone`: ids, newest first. Raises NotKept where there is none."""
    there = {one.id for one in list_examples(engine, owner, ["undone"])}
    found = next((id_ for id_ in undone if id_ in there), None)
    if found is None:
        raise NotKept("redo", "There is nothing to bring back", "", _CURE)
    return found


def _called(name: str, examples: Sequence[Example]) -> list[Example]:
    """Return the examples of that id or that lesson. Raises NotKept if several begin so."""
    if not name:
        return []
    by_id = _with_id(name, examples)
    by_lesson = [one for one in examples if one.lesson.startswith(name)]
    if not by_id and len({one.lesson for one in by_lesson}) > 1:
        raise NotKept("lesson", f"Several lessons have a digest that begins with {name[:40]}", "", "Give more of its digest.")
    return by_id or by_lesson


def _with_id(name: str, examples: Sequence[Example]) -> list[Example]:
    """Return the example of that id. Raises NotKept if several begin so."""
    found = [one for one in examples if name and (one.id.startswith(name) or one.id.removeprefix("ex-").startswith(name))]
    if len(found) > 1:
        raise NotKept("example", f"{len(found)} examples have an id that begins with {name[:40]}", "", "Give more of its id.")
    return found


def _back(one: Example) -> Literal["renew", "keep"]:
    """Return the move that lets an example count again which no lesson holds."""
    return "renew" if one.learn and one.kind != "fact" else "keep"


def _alone(lesson: Lesson, held: Sequence[Example]) -> bool:
    return set(lesson.examples) == {one.id for one in held}


def _standing(engine: "Engine", owner: str) -> tuple[Example, ...]:
    """Return the owner's examples that count."""
    return list_examples(engine, owner, COUNTING)


def _key(one: Example) -> tuple[str, str]:
    """Return the model and the question as it is compared."""
    return one.model, sameness(one.question)


def bring_back(home: Home, engine: "Engine", owner: str, gone: Sequence[Example], lessons: dict[str, Lesson]) -> tuple[str, ...]:
    """Let the newest earlier answer count again for each question whose answer is gone (undone or forgotten). Returns their ids."""
    superseded = list_examples(engine, owner, ["superseded"], newest=True)
    standing, back = set(map(_key, _standing(engine, owner))), list[str]()
    for one in gone:
        key, answer = _key(one), sameness(one.answer)
        if one.kind != "correction" or key in standing:
            continue
        earlier = (old for old in superseded if _key(old) == key and old.seq < one.seq)
        before = next((old for old in earlier if sameness(old.answer) != answer), None)  # the same words again would change nothing
        if before is None:
            continue
        standing.add(key)
        lesson = lessons.get(before.lesson)
        if lesson is not None and lesson.examples == (before.id,) and home.delta_folder(lesson.digest).is_dir():
            set_acting(engine, owner, lesson.digest, True)
        else:
            move_all(engine, owner, [before.id], _back(before))
        back.append(before.id)
    return tuple(back)
