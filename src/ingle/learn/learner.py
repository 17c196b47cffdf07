"""The learner: turns pending examples, oldest first, into lessons that passed the gate. A kill at any moment loses nothing.

An example goes pending → learning → (teacher → candidate → gate → delta in the home) → learned, in one transaction that also lets the
lesson act; or it is refused with reasons (home/example_states.py has every move). Examples that were `learning` when the process died
are pending again. The same examples make the same delta, so one that exists already is found. A delta without a lesson is deleted.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from ingle.adapt.account import make_up
from ingle.adapt.forget import OWED, pay
from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import HomeError, IngleError, Interrupted, NotKept
from ingle.core.example import Example
from ingle.core.headroom import Headroom
from ingle.core.report import Event, Fact, Sink
from ingle.home.example_states import end_learning
from ingle.home.examples import begin_learning, example_secret, list_examples
from ingle.home.kept import Kept
from ingle.home.lessons import Lesson, accept_lesson, drop_lesson, list_lessons
from ingle.home.place import Home
from ingle.home.staging import discard
from ingle.learn.learning_settings import RATINGS
from ingle.learn.lesson_need import CURE
from ingle.learn.work import NO_MEMORY, LessonError, Tries, Work, model_of, next_work, put_right, recover
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

LOCK = "learner"  # name of the lock: one learner per home
TOGETHER = 100  # most examples of one lesson


class LessonVerdict(Protocol):
    @property
    def accepted(self) -> bool: ...
    @property
    def delta(self) -> Delta | None: ...
    @property
    def reasons(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Trainer:
    """Teaches lessons and judges them. learn/teacher.py has the real functions, which load nothing before the first lesson."""

    teach: Callable[[Work], Candidate]
    judge: Callable[[Work, Candidate], LessonVerdict]
    # Returns what a lesson will take, beside the memory that it may have; None = nobody knows.
    room: Callable[[Work], Headroom | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class LearnerWatch:
    say: Callable[[str], None] = lambda _: None  # called with a line on each lesson; it never holds a user's words
    stopped: Callable[[], bool] = lambda: False  # asked between two lessons whether to stop
    # Called with the ids of the examples of a lesson that begins, and with none at its end.
    trying: Callable[[Sequence[str]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class LessonOutcome:
    work: Work
    lesson: Lesson | None  # none = it was refused, or an example changed meanwhile
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    room: Headroom | None = None  # time and memory that were foretold before it began


@dataclass(frozen=True, slots=True)
class Learned:
    outcomes: tuple[LessonOutcome, ...] = ()

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        return tuple(outcome.lesson for outcome in self.outcomes if outcome.lesson is not None)


@dataclass
class Learner:
    """Learns pending examples, one process per home, under the learner's lock."""

    home: Home
    engine: "Engine"
    trainer: Trainer
    sink: Sink
    watch: LearnerWatch = field(default_factory=LearnerWatch)
    ratings: int = RATINGS

    def __post_init__(self) -> None:
        self.tries = Tries.of(self.home)

    def start(self) -> None:
        """Repairs what an earlier learner left behind when it died, missing facts included."""
        recover(self.engine, self.tries)
        put_right(self.home, self.engine)
        with self.home.lock(OWED):
            pay(self.home, self.engine, self.sink)
        make_up(self.home, self.engine, self.sink)
        recorded = {row.values.get("lesson") for row in Ledger(self.engine, self.home.keys).read("lesson.accept")}
        for lesson in list_lessons(self.engine, None):
            if lesson.digest not in recorded:
                self.sink(accepted_event(lesson, {}))

    def step(self) -> LessonOutcome | None:
        """Learns the next piece of work; returns None if there is none."""
        put_right(self.home, self.engine)
        work = next_work(self.home, self.engine, self.tries.counts, self.ratings)
        return None if work is None else self.learn(work)

    def learn(self, work: Work, keep_old: bool = False) -> LessonOutcome:
        """Teaches and judges a lesson, and lets it act if it passes. `keep_old`: a refusal changes nothing (consolidation).

        Raises only errors that also prevent other lessons: HomeError, LedgerError. The examples are then pending again.
        """
        began = time.perf_counter()
        self.tries.begin(work.ids)
        self.watch.trying(work.ids)
        try:
            begin_learning(self.engine, work.owner, work.examples, work.new)
            outcome = self._outcome(work, keep_old)
        except NotKept:  # an example was deleted or changed while it was being learned
            outcome = LessonOutcome(work, None, ("it changed while it was being learned",))
        finally:
            self._back_to_pending(work)
            self.watch.trying(())
        self.tries.end(work.ids)
        return replace(outcome, seconds=time.perf_counter() - began)

    def _earlier(self, work: Work) -> Lesson | None:
        """Return an existing lesson of these examples for this model, as there is when the model was away for a while."""
        lessons = list_lessons(self.engine, work.owner, work.kept.digest)
        same = [one for one in lessons if (one.kind, one.examples) == (work.kind, work.ids)]
        return next((one for one in same if self.home.delta_folder(one.digest).is_dir()), None)

    def _outcome(self, work: Work, keep_old: bool) -> LessonOutcome:
        if (earlier := self._earlier(work)) is not None:
            lesson = accept_lesson(self.engine, earlier)
            self.sink(accepted_event(lesson, {"again": True}))
            return LessonOutcome(work, lesson)
        began, taught_s, to_blame, room = time.perf_counter(), 0.0, frozenset[str](), None
        try:
            if (room := self.trainer.room(work)) is not None:
                self._tell(room)
            candidate = self._salted(work, self.trainer.teach(work))
            taught_s = time.perf_counter() - began
            verdict = self.trainer.judge(work, candidate)
            delta, reasons = verdict.delta if verdict.accepted else None, tuple(verdict.reasons)
        except MemoryError:
            delta, reasons = None, (NO_MEMORY,)
        except (HomeError, Interrupted):
            raise  # a full disk is nobody's fault but the home's
        except IngleError as error:
            delta, reasons, to_blame = None, (str(error),), error.to_blame if isinstance(error, LessonError) else to_blame
        seconds = time.perf_counter() - began
        if delta is None:
            self._refuse(work, reasons, to_blame, keep_old, seconds)
            return LessonOutcome(work, None, reasons, room=room)
        lesson = Lesson(delta.digest, work.owner, work.kept.name, work.kept.digest, work.kind, work.ids, True)
        replaced = self._replaced(work, delta.digest)
        try:
            lesson = accept_lesson(self.engine, lesson, [one.digest for one in replaced])
        except NotKept:
            self._sweep(work.owner, delta.digest)
            raise
        self.sink(accepted_event(lesson, {"seconds": round(seconds, 3), "teaching_s": round(taught_s, 3), "instead_of": len(replaced)}))
        for old in replaced:
            if set(old.examples) <= set(work.ids):  # else it comes back if what superseded it is undone
                drop_lesson(self.engine, work.owner, old.digest)
                discard(self.home, self.home.delta_folder(old.digest))
        self.watch.say(f"learned {_what(work)} for {work.kept.name} in {seconds:.1f} s")
        return LessonOutcome(work, lesson, room=room)

    def _tell(self, room: Headroom) -> None:
        """Says what a lesson will take. Raises NoRoom where the memory isn't there."""
        if room.fits and room.told:
            self.watch.say(room.told)
        room.check(CURE)

    def _salted(self, work: Work, candidate: Candidate) -> Candidate:
        """Return the candidate with the secrets of its examples in its origin, and so in its digest. Otherwise somebody with the ledger
        could guess forgotten words, learn the guess and compare digests. A forgotten example's secret is deleted with it."""
        keys = [example_secret(self.engine, work.owner, id_).hex() for id_ in work.ids]
        return replace(candidate, origin={**candidate.origin, "salt": digest_json(["ingle.lesson", *keys])})

    def _refuse(self, work: Work, reasons: tuple[str, ...], to_blame: Collection[str], keep_old: bool, seconds: float) -> None:
        """Refuses `to_blame`, if any of them is new, and tries the others again without them; else refuses all."""
        if not keep_old:
            if work.kind == "answers" and len(work.examples) > 1:
                # Next time each by itself: one of them may spoil it for the others.
                end_learning(self.engine, work.owner, work.ids, "separate")
            else:
                blamed = [id_ for id_ in work.new if id_ in to_blame]
                end_learning(self.engine, work.owner, blamed or work.new, "refuse", reasons)
        facts: dict[str, Fact] = {"kind": work.kind, "examples": len(work.examples), "seconds": round(seconds, 3)}
        if len(work.examples) == 1:
            facts["example"] = work.examples[0].id
        self.sink(Event("lesson.refuse", work.kept.name, facts))
        self.watch.say(f"refused {_what(work)} for {work.kept.name}: {'; '.join(reasons)}")

    def _replaced(self, work: Work, digest: str) -> list[Lesson]:
        """Return the acting lessons for this model whose examples the new lesson holds, or that are superseded."""
        now = {one.id: one for one in list_examples(self.engine, work.owner)}

        def elsewhere(id_: str, old: Lesson) -> bool:
            return id_ not in work.ids and id_ in now and now[id_].state == "learned" and now[id_].lesson == old.digest

        acting = list_lessons(self.engine, work.owner, work.kept.digest, acting=True)
        same = [one for one in acting if one.kind == work.kind and one.digest != digest]
        return [one for one in same if not any(elsewhere(id_, one) for id_ in one.examples)]

    def _sweep(self, owner: str, digest: str) -> None:
        if all(lesson.digest != digest for lesson in list_lessons(self.engine, owner)):
            discard(self.home, self.home.delta_folder(digest))

    def _back_to_pending(self, work: Work) -> None:
        """Returns examples that are still `learning` to their earlier state."""
        for one in work.retried:
            end_learning(self.engine, work.owner, [one.id], "refuse", one.reasons)
        end_learning(self.engine, work.owner, work.new, "release")


def learn_once(learner: Learner) -> Learned:
    """Learn until nothing more can be learned now, or the watch says stop. Under the learner's lock; raises as `Learner.learn`."""
    outcomes = list[LessonOutcome]()
    while not learner.watch.stopped():
        outcome = learner.step()
        if outcome is None:
            break
        outcomes.append(outcome)
    return Learned(tuple(outcomes))


def consolidate(learner: Learner, model: str = "", most: int = TOGETHER) -> Learned:
    """Merge lessons: learn all corrections of each user and model together again, refused ones too.

    A lesson holds at most `most` examples. If the gate refuses, it is tried once more without the examples that had been refused before;
    if that fails too, the old lessons stay. Under the learner's lock.
    """
    put_right(learner.home, learner.engine)
    groups: dict[tuple[str, str], list[Example]] = {}
    for one in list_examples(learner.engine, None, ["learned", "refused"], model):
        if one.kind == "correction" and one.learn:
            groups.setdefault((one.owner, one.model), []).append(one)
    outcomes = list[LessonOutcome]()
    for (owner, name), examples in groups.items():
        kept = model_of(learner.home, name)
        for start in range(0, len(examples) if kept is not None else 0, most):
            if learner.watch.stopped():
                break
            assert kept is not None
            outcomes += _together(learner, owner, kept, examples[start : start + most])
    return Learned(tuple(outcomes))


def _together(learner: Learner, owner: str, kept: Kept, examples: Sequence[Example]) -> list[LessonOutcome]:
    refused = tuple(one for one in examples if one.state == "refused")
    attempts = [(tuple(examples), refused)]
    if refused:
        attempts.append((tuple(one for one in examples if one.state == "learned"), ()))
    outcomes = list[LessonOutcome]()
    for held, again in attempts:
        if not again and len({one.lesson for one in held}) < 2:
            continue  # one lesson holds them already
        outcomes.append(learner.learn(Work(owner, kept, "answers", held, again), keep_old=True))
        if outcomes[-1].lesson is not None:
            break
    return outcomes


def accepted_event(lesson: Lesson, figures: Mapping[str, Fact]) -> Event:
    facts: dict[str, Fact] = {
        "lesson": lesson.digest,
        "kind": lesson.kind,
        "examples": len(lesson.examples),
        "stack": lesson.stack,
        **figures,
    }
    if len(lesson.examples) == 1:
        facts["example"] = lesson.examples[0]
    return Event("lesson.accept", lesson.model, facts)


def _what(work: Work) -> str:
    if work.kind == "style":
        return f"a style from {len(work.examples)} ratings"
    return "a correction" if len(work.examples) == 1 else f"{len(work.examples)} corrections together"
