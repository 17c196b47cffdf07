"""What the learner does next, and what the home must be put right in first: read from the database and the home, so a kill loses nothing.

A piece of work is one correction; the corrections of a lesson that was let go, which are learned together again; or, once enough of them
are new, all the ratings of one user about one model.
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
from ingle.learn.settings import RATINGS

if TYPE_CHECKING:
    from sqlalchemy import Engine

NO_MEMORY = "learning it needed more memory than the learner may have; raise learn.memory_mb"


class LessonError(IngleError):
    """Examples of which no lesson can be made."""

    exit_code, http_status = 14, 422

    def __init__(self, field: str, rule: str, got: object = "", cure: str = "", to_blame: Iterable[str] = ()) -> None:
        super().__init__(field, rule, got, cure)
        self.to_blame = frozenset(to_blame)
        """Ids of the examples without which one can be made; none = it is not about single ones."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is learned in one go."""

    owner: str
    kept: Kept
    """The model that learns it."""
    kind: Literal["answers", "style"]
    examples: tuple[Example, ...]
    """In the order in which they were taught."""
    retried: tuple[Example, ...] = ()
    """Those among them that were refused before."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the examples."""
        return tuple(one.id for one in self.examples)

    @property
    def new(self) -> tuple[str, ...]:
        """Ids of those that no lesson holds yet."""
        return tuple(one.id for one in self.examples if one.state != "learned")


@dataclass
class Tries:
    """How often the learner died over which example, so that one that it can't digest comes last, not first, the next time. Ids only."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    memory: list[str] = field(default_factory=list)
    """Over which it ran out of the memory that it may have."""

    @classmethod
    def of(cls, home: Home) -> "Tries":
        """As they stand in this home; from the beginning if the file is gone or damaged."""
        tries = cls(home.root / "learner.json")
        with suppress(OSError, ValueError, TypeError, AttributeError):
            table = json.loads(tries.path.read_bytes())
            tries.counts = {str(id_): int(count) for id_, count in table["tries"].items()}
            tries.memory = [str(id_) for id_ in table["memory"]]
        return tries

    def begin(self, ids: Iterable[str]) -> None:
        """Counts one more for each, before it is tried."""
        for id_ in ids:
            self.counts[id_] = self.counts.get(id_, 0) + 1
        self._write()

    def end(self, ids: Iterable[str]) -> None:
        """They are done with."""
        for id_ in ids:
            self.counts.pop(id_, None)
        self._write()

    def out_of_memory(self, ids: Iterable[str]) -> None:
        """The process is about to end because of these."""
        self.memory = sorted({*self.memory, *ids})
        self._write()

    def _write(self) -> None:
        write_atomic(self.path, json.dumps({"tries": self.counts, "memory": self.memory}).encode(), mode=0o600)


def next_work(home: Home, engine: "Engine", tries: Mapping[str, int], ratings: int = RATINGS) -> Work | None:
    """The oldest piece of work whose model is here, those over which the learner died the least often first. None = all is learned."""
    pending = [one for one in list_examples(engine, None, ["pending"]) if one.learn and one.kind != "fact"]
    models: dict[str, Kept | None] = {}
    for one in sorted(pending, key=lambda one: tries.get(one.id, 0)):
        if one.model not in models:
            models[one.model] = model_of(home, one.model)
        kept = models[one.model]
        if kept is None:
            continue  # until it is here again
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
    """Changes with every example that comes, goes or moves on, and with every lesson: asked often, so it reads no words."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        examples = connection.execute(sa.text("SELECT state, COUNT(*), SUM(seq) FROM examples GROUP BY state ORDER BY state")).all()
        lessons = connection.execute(sa.text("SELECT COUNT(*), SUM(seq), SUM(acting) FROM lessons")).all()
    return repr([tuple(row) for row in (*examples, *lessons)])


def model_of(home: Home, name: str) -> Kept | None:
    """The model of that name, if it can be had now."""
    try:
        return get_kept(home, name)
    except (NotKept, DeltaError, HomeError, ConfigError):
        return None


def recover(engine: "Engine", tries: Tries) -> int:
    """Makes what was being learned when the learner died `pending` again, or says that it is too large. For the holder of the learner's
    lock. Returns how many there were."""
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
    """Lets go every lesson that knows what it must not (an example that is gone, or has other words now), or can't act any more, and every
    delta of the learner's that no lesson names. What else such a lesson had taught becomes `pending`. For the holder of the learner's lock.
    """
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
    # One that another was put in the place of, by learning together what they had taught.
    return lesson.acting or any(one is not None and one.lesson == lesson.digest for one in held)


def _follow_models(home: Home, engine: "Engine", lessons: Sequence[Lesson]) -> None:
    """What was learned by files that its model's name doesn't mean any more is to be learned by those that it means now."""
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
