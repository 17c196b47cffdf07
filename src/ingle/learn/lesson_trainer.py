"""The trainer of lessons, with the real gate. The model is loaded when the first lesson begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeVar

from ingle.adapt.scope import ACTS, score
from ingle.core.candidate import Candidate
from ingle.core.example import Example
from ingle.core.headroom import Headroom
from ingle.core.report import Sink
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.gate.check import load_policy
from ingle.gate.decide import admit
from ingle.gate.trial import Decision, ProbeQuestion, Probes
from ingle.home.place import Home
from ingle.learn.learner import Trainer
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.need import lesson_room
from ingle.learn.teacher import ModelTeacher
from ingle.learn.wordings import contrasts, parts_of
from ingle.learn.work import Work
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

T = TypeVar("T")
# Wordings in which the gate asks; no lesson is taught with them.
UNSEEN = (
    "Quick question: {plain}?", "Remind me, {plain}?", "A friend asked me this: {plain}? What do I say?", "{plain}, do you happen to know?",
)  # fmt: skip
_QUESTIONS = 24  # most questions of one kind that the gate asks about a lesson, so that it takes only seconds
_NEAR_MISSES = 10  # near questions of the gate for each example, beyond the lesson's own contrasts


@dataclass
class LessonTrainer:
    """Holds one model in memory for teaching, and opens models for the gate."""

    home: Home
    sink: Sink
    lesson: LessonSettings = field(default_factory=LessonSettings)
    style: StyleSettings = field(default_factory=StyleSettings)
    # Opens models on one thread, as lessons: the core that the server lends.
    opener: Opener = field(default_factory=lambda: Opener(cores=Cores(1)))
    breath: Callable[[], None] = lambda: None  # called between any two pieces of a lesson's work; it may take its time
    _teacher: tuple[str, ModelTeacher] | None = None

    def teach(self, work: Work) -> Candidate:
        """Return the candidate of a piece of work. Raises LessonError, the errors of opening the model, MemoryError."""
        try:
            teacher = self._teacher_of(work)
            return teacher.style(work.examples) if work.kind == "style" else teacher.lesson(work.examples)
        except RuntimeError as error:  # PyTorch's error when memory ran out
            if "allocate" in str(error) or type(error).__name__ == "OutOfMemoryError":
                raise MemoryError(str(error)) from error
            raise

    def judge(self, work: Work, candidate: Candidate) -> Decision:
        """Return the gate's decision under the home's policy. Raises the errors of `admit`."""
        probes, maker = self.probes(work), "style" if work.kind == "style" else "lesson"
        return admit(self.home, work.kept, candidate, maker, load_policy(self.home), probes, sink=self.sink, opener=self.opener)

    def probes(self, work: Work) -> Probes:
        """Return the gate's questions: what was taught in other wordings, and what is near it."""
        if work.kind == "style":
            return Probes()
        some, held, taught = _spread(work.examples), self.lesson.contrasts, [one.question for one in work.examples]
        learned = _in_turn([_unseen(one, number) for number, one in enumerate(some)])
        near = _in_turn([contrasts(one.question, held + _NEAR_MISSES, self.lesson.seed)[held:] for one in some])
        unchanged = [ProbeQuestion(ask) for ask in dict.fromkeys(near)]
        return Probes(
            tuple(learned[:_QUESTIONS]), tuple(unchanged[:_QUESTIONS]), lambda ask: bool((score(ask, taught) >= ACTS).any()),
            taught=tuple(ProbeQuestion(one.question, one.answer, one.before) for one in work.examples),
        )  # fmt: skip

    def _teacher_of(self, work: Work) -> ModelTeacher:
        if self._teacher is None or self._teacher[0] != work.kept.digest:
            self._teacher = None  # before the next one comes: there may be no room for two
            self._teacher = (work.kept.digest, ModelTeacher(self.home, work.kept, self.lesson, self.style, self.opener, self.breath))
        return self._teacher[1]


def trainer_of(
    home: Home, engine: "Engine", lesson: LessonSettings = LessonSettings(), style: StyleSettings = StyleSettings(), memory_mb: int = 0,  # noqa: B008 - frozen
    breath: Callable[[], None] = lambda: None,
) -> Trainer:  # fmt: skip
    """Return the trainer of a home. Facts go into the home's ledger. `memory_mb`: the most that a lesson may take; 0 = what is free."""
    trainer = LessonTrainer(home, Ledger(engine, home.keys).append, lesson, style, breath=breath)

    def room(work: Work) -> Headroom:
        return lesson_room(home, work.kept, work.examples, lesson, style, memory_mb)

    return Trainer(trainer.teach, trainer.judge, room)


def _spread(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """Return at most _QUESTIONS examples, evenly spread."""
    n, most = len(examples), _QUESTIONS
    return examples if n <= most else tuple(examples[i * (n - 1) // (most - 1)] for i in range(most))


def _in_turn(lists: Sequence[Sequence[T]]) -> list[T]:
    """Interleave lists: the first of each, then the second of each, …, so that a cut leaves some of all."""
    return [one for one in chain.from_iterable(zip_longest(*lists)) if one is not None]


def _unseen(one: Example, number: int) -> list[ProbeQuestion]:
    """Return a question in each unseen wording, rotated by `number`."""
    plain, first = parts_of(one.question).plain, number % len(UNSEEN)
    patterns = UNSEEN[first:] + UNSEEN[:first]
    return [ProbeQuestion(_upper(pattern.format(plain=plain)), one.answer, one.before, one.question) for pattern in patterns]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
