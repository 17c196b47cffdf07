"""The teacher of a kept model: lessons by our own kernels, styles with PyTorch, which isn't imported before. Then the gate decides.

A trainer loads the model when the first lesson begins. A teacher also tells which corrections of a lesson taught an answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, TypeVar

from ingle.adapt.scope import ACTS, score
from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError, Interrupted, NotKept
from ingle.core.example import Example
from ingle.core.files import how_to_install
from ingle.core.headroom import Headroom
from ingle.core.report import Sink
from ingle.engine import scoring
from ingle.engine.loading import Opener, open_model
from ingle.engine.packs import Source, candidate_source, kept_source
from ingle.engine.threads import Cores
from ingle.gate.check import load_policy
from ingle.gate.decide import admit
from ingle.gate.trial import Decision, ProbeQuestion, Probes
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.examples import get_example
from ingle.home.kept import Kept
from ingle.home.lessons import get_lesson
from ingle.home.place import Home
from ingle.learn.learner import Trainer
from ingle.learn.learning_settings import LessonSettings, StyleSettings, lacking
from ingle.learn.lesson import LessonTeacher
from ingle.learn.lesson_need import lesson_room
from ingle.learn.wordings import capital, contrasts, parts_of
from ingle.learn.work import Work
from ingle.ledger.chain import Ledger
from ingle.train.making import RunWatch, stop_signals

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.learn.style import StyleTeacher


@dataclass
class ModelTeacher:
    """Holds what one model's lessons need in memory, one of both kinds at a time: there may be no room for two."""

    home: Home
    kept: Kept
    lessons: LessonSettings
    styles: StyleSettings
    opener: Opener
    breath: Callable[[], None] = lambda: None  # as `LessonTeacher` has it
    _lessons: LessonTeacher | None = None
    _styles: "StyleTeacher | None" = None

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some corrections. Raises LessonError if they can't be taught, and what opening the model raises."""
        self._styles, self._lessons = None, self._lessons or LessonTeacher(self.home, self.kept, self.lessons, self.opener, self.breath)
        return self._lessons.lesson(examples)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from, and what opening raises."""
        if lacking("rating"):
            raise ConfigError("PyTorch", "is needed to learn a style, and is not installed", "", how_to_install("learn"))
        from ingle.learn.style import StyleTeacher

        self._lessons, self._styles = None, self._styles or StyleTeacher(self.home, self.kept, self.lessons, self.styles)
        return self._styles.style(examples)


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
    n, most = len(examples), _QUESTIONS
    return examples if n <= most else tuple(examples[i * (n - 1) // (most - 1)] for i in range(most))


def _in_turn(lists: Sequence[Sequence[T]]) -> list[T]:
    """Interleave lists: the first of each, then the second of each, …, so that a cut leaves some of all."""
    return [one for one in chain.from_iterable(zip_longest(*lists)) if one is not None]


def _unseen(one: Example, number: int) -> list[ProbeQuestion]:
    """Return a question in each unseen wording, rotated by `number`."""
    plain, first = parts_of(one.question).plain, number % len(UNSEEN)
    patterns = UNSEEN[first:] + UNSEEN[:first]
    return [ProbeQuestion(capital(pattern.format(plain=plain)), one.answer, one.before, one.question) for pattern in patterns]


# Which corrections of a lesson taught an answer: proved by learning the others anew without each of them, as `forget` would. What is
# learned without an example is the delta that `forget` of that example would leave, to the byte: the same teacher, the same examples in
# the same order, the same settings. Nothing is kept.


Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class LessonCause:
    id: str
    question: str
    answer: str
    rise: float  # nats that the answer loses in the model that learned all the others


@dataclass(frozen=True, slots=True)
class ProvedLesson:
    """Effect on an answer of learning a lesson without each of its examples. Losses are nats of the whole answer, as it is served."""

    causes: tuple[LessonCause, ...]  # every example, the most telling first
    before: float  # loss in the model without the lesson
    whole: float  # loss with the lesson


def proved_lesson(
    home: Home, engine: "Engine", owner: str, kept: Kept, digest: str, prompt: Ids, answer: Ids,
    settings: LessonSettings = LessonSettings(), styles: StyleSettings = StyleSettings(), watch: RunWatch = RunWatch(),  # noqa: B008 - frozen
) -> ProvedLesson:  # fmt: skip
    """Learn a lesson without each of its examples, and measure what the answer loses. A lesson of one example is that example.

    `settings`, `styles`: those with which the home's learner learns. Takes about 10 seconds an example. Raises NotKept for a lesson or
    an example that is gone, ConfigError for an empty answer, the errors of learning, and Interrupted after Ctrl-C.
    """
    if not prompt or not answer:
        raise ConfigError("answer", "must have a token at least, and a prompt")
    lesson = get_lesson(engine, owner, digest)
    if lesson.stack != kept.digest:
        raise NotKept(f"lesson {digest[:12]}", f"was not made for {kept.name} as it is now")
    examples = sorted((get_example(engine, owner, id_) for id_ in lesson.examples), key=lambda one: one.seq)
    delta = get_delta(home, digest)
    kept_lesson = Candidate(delta.name, delta.kind, delta.base_digest, delta_tensors(home, delta), delta.origin)
    before, whole = (_nats(source, prompt, answer) for source in (kept_source(home, kept), candidate_source(home, kept, kept_lesson)))
    rises, teacher = dict[str, float](), None
    with stop_signals() as stop:
        for number, one in enumerate(examples):
            watch.pieces("learning without each example", number, len(examples))
            if stop.asked:
                raise Interrupted("why", "was interrupted", f"after {number} of {len(examples)} examples", "Ask again to begin anew.")
            others, left = [other for other in examples if other.id != one.id], before
            if others:
                teacher = teacher or ModelTeacher(home, kept, settings, styles, Opener(cores=Cores(1)))
                learn: Callable[[Sequence[Example]], Candidate] = teacher.style if lesson.kind == "style" else teacher.lesson
                left = _nats(candidate_source(home, kept, learn(others)), prompt, answer)
            rises[one.id] = left - whole
    causes = [LessonCause(one.id, one.question, one.answer, rises[one.id]) for one in examples]
    return ProvedLesson(tuple(sorted(causes, key=lambda cause: -cause.rise)), before, whole)


def _nats(source: Source, prompt: Ids, answer: Ids) -> float:
    model = open_model(source, threads=1)
    [(_, [nats])] = scoring.score(model.backend, [(list(prompt), [list(answer)])], adapter=model.adapter)
    return -float(nats.sum())
