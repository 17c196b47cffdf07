"""The learner's work: what to learn next, and how to repair the home first. Read from database and home, so that a kill loses nothing.

A piece of work is one correction; or the corrections of a dropped lesson, which are learned together again; or, once enough are new,
all ratings of one user for one model.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ingle.core.errors import ConfigError, DeltaError, HomeError, IngleError, NotKept
from ingle.core.example import Example
from ingle.core.files import write_atomic
from ingle.home.deltas import LESSON, get_delta, list_deltas
from ingle.home.example_states import end_learning, move_all
from ingle.home.examples import list_examples
from ingle.home.kept import Kept, get_kept
from ingle.home.lessons import Lesson, dissolve_lesson, list_lessons, retire_lesson
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.learn.learning_settings import RATINGS, lacking

if TYPE_CHECKING:
    from sqlalchemy import Engine

NO_MEMORY = "learning it needed more memory than the learner may have; see learn.memory_mb"


class LessonError(IngleError):
    """No lesson can be made of some examples."""

    exit_code, http_status = 14, 422

    def __init__(self, field: str, rule: str, got: object = "", cure: str = "", to_blame: Iterable[str] = ()) -> None:
        super().__init__(field, rule, got, cure)
        # Ids of the examples at fault: a lesson can be made without them. None = no single ones are at fault.
        self.to_blame = frozenset(to_blame)


@dataclass(frozen=True, slots=True)
class Work:
    owner: str
    kept: Kept  # the model that learns it
    kind: Literal["answers", "style"]
    examples: tuple[Example, ...]  # all examples, oldest first
    retried: tuple[Example, ...] = ()  # examples that were refused before

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one.id for one in self.examples)

    @property
    def new(self) -> tuple[str, ...]:
        return tuple(one.id for one in self.examples if one.state != "learned")


@dataclass
class Tries:
    """How often the learner died during each example, so that a fatal one comes last the next time. Ids only."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    memory: list[str] = field(default_factory=list)  # ids of examples that needed more memory than allowed

    @classmethod
    def of(cls, home: Home) -> "Tries":
        """Read the home's file; start from nothing if it is missing or damaged."""
        tries = cls(home.root / "learner.json")
        with suppress(OSError, ValueError, TypeError, AttributeError):
            table = json.loads(tries.path.read_bytes())
            tries.counts = {str(id_): int(count) for id_, count in table["tries"].items()}
            tries.memory = [str(id_) for id_ in table["memory"]]
        return tries

    def begin(self, ids: Iterable[str]) -> None:
        """Counts an attempt for each example, before it begins."""
        for id_ in ids:
            self.counts[id_] = self.counts.get(id_, 0) + 1
        self._write()

    def end(self, ids: Iterable[str]) -> None:
        """Clears the counts of examples that are done."""
        for id_ in ids:
            self.counts.pop(id_, None)
        self._write()

    def out_of_memory(self, ids: Iterable[str]) -> None:
        """Notes examples that need too much memory, before the process ends."""
        self.memory = sorted({*self.memory, *ids})
        self._write()

    def _write(self) -> None:
        write_atomic(self.path, json.dumps({"tries": self.counts, "memory": self.memory}).encode(), mode=0o600)


def next_work(home: Home, engine: "Engine", tries: Mapping[str, int], ratings: int = RATINGS) -> Work | None:
    """Return the next piece of work whose model is here: first those with the fewest deaths of the learner, then the oldest. None = no
    work."""
    pending = [one for one in list_examples(engine, None, ["pending"]) if one.learn and one.kind != "fact"]
    models: dict[str, Kept | None] = {}
    for one in sorted(pending, key=lambda one: tries.get(one.id, 0)):
        if one.model not in models:
            models[one.model] = model_of(home, one.model)
        kept = models[one.model]
        if kept is None or lacking(one.kind):
            continue  # until it is here again, or what it takes is installed
        peers = [other for other in pending if (other.owner, other.model, other.kind) == (one.owner, one.model, one.kind)]
        if one.kind == "rating":
            learned = list_examples(engine, one.owner, ["learned", "pending"], one.model)
            all_ = tuple(other for other in learned if other.kind == "rating" and other.learn)
            if len(peers) >= ratings or (one.lesson and len(all_) >= ratings):
                return Work(one.owner, kept, "style", all_)
            continue
        together = [other for other in peers if one.lesson and other.lesson == one.lesson] or [one]
        return Work(one.owner, kept, "answers", tuple(sorted(together, key=lambda other: other.seq)))
    return None


def standing(engine: "Engine") -> str:
    """Return a mark that changes with every change of examples and lessons. It is read often, so it reads no words."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        examples = connection.execute(sa.text("SELECT state, COUNT(*), SUM(seq) FROM examples GROUP BY state ORDER BY state")).all()
        lessons = connection.execute(sa.text("SELECT COUNT(*), SUM(seq), SUM(acting) FROM lessons")).all()
    return repr([tuple(row) for row in (*examples, *lessons)])


def model_of(home: Home, name: str) -> Kept | None:
    """Return the model of that name; None if it is missing or damaged."""
    try:
        return get_kept(home, name)
    except (NotKept, DeltaError, HomeError, ConfigError):
        return None


def recover(engine: "Engine", tries: Tries) -> int:
    """Make examples that were being learned when the learner died `pending` again, or refuse them as too large. Returns their number.
    Under the learner's lock."""
    left = list_examples(engine, None, ["learning"])
    for one in left:
        if one.id in tries.memory:
            end_learning(engine, one.owner, [one.id], "refuse", [NO_MEMORY])
        else:
            end_learning(engine, one.owner, [one.id], "release")
    if tries.memory:
        gone, tries.memory = tries.memory, []
        tries.end(gone)
    return len(left)


def put_right(home: Home, engine: "Engine") -> None:
    """Drop every lesson with an example that was deleted or changed, every lesson that can't act any more, and every lesson delta that no
    lesson names. The other examples of a dropped lesson become `pending`. Under the learner's lock."""
    lessons = list_lessons(engine, None)
    examples = {(one.owner, one.id): one for one in list_examples(engine, None)} if lessons else {}
    for lesson in lessons:
        held = [examples.get((lesson.owner, id_)) for id_ in lesson.examples]
        if not _may_stay(home, lesson, held):
            dissolve_lesson(engine, lesson.owner, lesson.digest)
            discard(home, home.delta_folder(lesson.digest))
        elif lesson.acting and all(one is not None and one.state == "superseded" for one in held):
            retire_lesson(engine, lesson.owner, lesson.digest)
    _follow_models(home, engine, list_lessons(engine, None))
    named = {lesson.digest for lesson in list_lessons(engine, None)}
    for delta in list_deltas(home):
        if LESSON in delta.origin and delta.digest not in named:
            discard(home, home.delta_folder(delta.digest))


def _may_stay(home: Home, lesson: Lesson, held: Sequence[Example | None]) -> bool:
    try:
        get_delta(home, lesson.digest)
    except (HomeError, NotKept):  # it is damaged, or gone
        return False
    for one in held:
        if one is None or (one.state == "pending" and not one.lesson):  # deleted, or its words were changed
            return False
    # Else another lesson replaced it, which learned its examples together with others.
    return lesson.acting or any(one is not None and one.lesson == lesson.digest for one in held)


def _follow_models(home: Home, engine: "Engine", lessons: Sequence[Lesson]) -> None:
    """Have examples learned again whose model's name means other files now."""
    stacks: dict[str, str] = {}
    by_digest = {(lesson.owner, lesson.digest): lesson for lesson in lessons}
    for one in list_examples(engine, None, ["learned"]):
        lesson = by_digest.get((one.owner, one.lesson))
        if lesson is None:
            move_all(engine, one.owner, [one.id], "relearn")
            continue
        if one.model not in stacks:
            kept = model_of(home, one.model)
            stacks[one.model] = "" if kept is None else kept.digest
        if stacks[one.model] not in ("", lesson.stack):
            move_all(engine, one.owner, [one.id], "relearn")
