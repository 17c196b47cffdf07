"""Which corrections of a lesson taught an answer: proved by learning the others anew without each of them, as `forget` would.

What is learned without an example is the delta that `forget` of that example would leave, to the byte: the same teacher, the same examples
in the same order, the same settings. Nothing is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.core.candidate import Candidate
from ingle.core.errors import ConfigError, Interrupted, NotKept
from ingle.core.example import Example
from ingle.engine.loading import Opener, open_model
from ingle.engine.packs import Source, candidate_source, kept_source
from ingle.engine.scoring import score
from ingle.engine.threads import Cores
from ingle.home.deltas import delta_tensors, get_delta
from ingle.home.examples import get_example
from ingle.home.kept import Kept
from ingle.home.lessons import get_lesson
from ingle.home.place import Home
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.teacher import ModelTeacher
from ingle.train.making import RunWatch, stop_signals

if TYPE_CHECKING:
    from sqlalchemy import Engine

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class LessonCause:
    """One correction of a lesson."""

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
    [(_, [nats])] = score(model.backend, [(list(prompt), [list(answer)])], adapter=model.adapter)
    return -float(nats.sum())
