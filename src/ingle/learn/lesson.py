"""The teacher of lessons: by our own kernels, forward and back, in what serving needs anyway. It imports no PyTorch.

A lesson asks each question in many wordings and trains a low-rank addition to the upper layers until the answer is certain in all: every
token is likelier than all others together by a margin, so that free writing gives it. It also asks near questions and holds their
answers where they were, by the Kullback-Leibler divergence from the model as it is.

The same examples, settings and machine give the same bytes. Forgetting relies on that: all the rest is learned again.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.core.process import release_memory
from ingle.engine.loading import Opener
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.adam import Adam
from ingle.learn.lesson_documents import answered
from ingle.learn.lesson_model import LessonModel
from ingle.learn.lesson_settings import LessonSettings
from ingle.learn.matrix import Array
from ingle.learn.standing import LessonStanding, allowed_steps
from ingle.learn.vocabulary_losses import cross_entropy, divergence
from ingle.learn.wordings import contrasts, wordings
from ingle.learn.work import LessonError

KIND = "lora"
_ROW_TOKENS = 192


class LessonTeacher:
    """Holds a model's upper layers in memory and teaches one lesson after another. Each begins with the unchanged model."""

    def __init__(self, home: Home, kept: Kept, settings: LessonSettings, opener: Opener, breath: Callable[[], None] = lambda: None) -> None:
        """Reads the weights. `breath` is called after each row of documents, and may take its time. Raises the errors of opening a model,
        ConfigError for settings that don't fit it."""
        self.settings, self.model, self._breath = settings, LessonModel(home, kept, settings, opener), breath

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some corrections. Raises LessonError if they can't be taught."""
        began, settings = time.perf_counter(), self.settings
        check_usable(examples)
        with threadpool_limits(settings.threads, "blas"):
            course = _LessonCourse(self.model, settings, examples, self._breath)
            steps = course.run()
            tensors = {name: values.astype(np.float16) for name, values in self.model.tensors().items()}
        report = course.standing.report(steps, time.perf_counter() - began)
        del course
        release_memory()  # the gate comes next
        return lesson_candidate(self.model.kept, "answers", examples, tensors, settings.digest, settings.seed, report)


def check_usable(examples: Sequence[Example]) -> None:
    """Raises LessonError unless each has a question and an answer."""
    usable = [example for example in examples if example.question.strip() and example.answer.strip()]
    if not usable or len(usable) < len(examples):
        raise LessonError("examples", "must have a question and an answer each", f"{len(usable)} of {len(examples)} do")


def lesson_candidate(
    kept: Kept, kind: str, examples: Sequence[Example], tensors: dict[str, Any], settings: str, seed: int, report: dict[str, Any]
) -> Candidate:
    """Return a lesson as a candidate. Its origin names examples by their ids and holds none of their words."""
    ids = [example.id for example in examples]
    origin = {LESSON: kind, "examples": " ".join(ids), "settings": settings, "seed": str(seed)}
    return Candidate(f"lesson-{digest_json(ids)[:12]}", KIND, kept.digest, tensors, origin, report)


def near_questions(settings: LessonSettings, examples: Sequence[Example]) -> list[str]:
    """Return the questions whose answers must stay."""
    taught = {example.question.strip().lower() for example in examples}
    if not settings.contrast_weight:
        return []
    near = [text for example in examples for text in contrasts(example.question, settings.contrasts, settings.seed)]
    return [text for text in dict.fromkeys(near) if text.lower() not in taught]


class _LessonCourse:
    """The training of one lesson: its taught documents, then its contrasts."""

    def __init__(self, model: LessonModel, settings: LessonSettings, examples: Sequence[Example], breath: Callable[[], None]) -> None:
        self._model, self._settings, self._most, self._breath = model, settings, allowed_steps(settings, examples), breath
        documents = [
            answered(model.tokenizer, example.before, wording, example.answer, settings.max_tokens)
            for example in examples
            for wording in wordings(example.question, settings.wordings, settings.seed)
        ]
        self._read = model.read([*documents, *model.as_before(near_questions(settings, examples))])
        self._adam = Adam(model.begin(), settings.learning_rate)
        self.standing = LessonStanding(settings, len(documents), len(self._read.documents))
        self._before = self._unmoved()
        release_memory()  # what reading all documents took, and what is taken from now on is less

    def run(self) -> int:
        """Train until all documents reach their goals, or the steps run out. Returns the number of steps."""
        for number in range(self._most):
            if number >= self._settings.min_steps and self.standing.reached and self._look_again(number):
                return number
            self._see(self.standing.chosen(number), number, learn=True)
            self._adam.step(1 / (1 + number / self._settings.half_rate_after))
        self._look_again(self._most)
        return self._most

    def _unmoved(self) -> dict[int, Array]:
        """By contrast: its final states in the unchanged model."""
        unmoved = dict[int, Array]()
        for some in self._rows(range(self.standing.taught, len(self._read.documents))):
            row, x = self._read.row(some)
            states = self._model.upper(x, row)[0]
            self._breath()
            unmoved |= {number: states[row.learnt == place] for place, number in enumerate(some)}
        return unmoved

    def _see(self, chosen: Sequence[int], step: int, learn: bool) -> None:
        """Note each document's distance. To `learn`, add the gradients of the mean loss over taught tokens and the weighted mean drift of
        contrasts' tokens."""
        first = self.standing.taught
        weights = [1 / max(1, self._tokens(i for i in chosen if i < first))]
        weights.append(self._settings.contrast_weight / max(1, self._tokens(i for i in chosen if i >= first)))
        for some in self._rows(chosen):
            row, x = self._read.row(some)
            states, back = self._model.upper(x, row)
            numbers = np.array(some)[row.learnt]
            taught = int((numbers < first).sum())
            words, slope = cross_entropy(states[:taught], self._model.head, row.targets[:taught])
            self.standing.note(numbers[:taught], np.float32(math.log(self._settings.certainty)) - words, step, "most")
            slopes = [slope * np.float32(weights[0])]
            if taught < len(numbers):
                before = np.concatenate([self._before[i] for i in some if i >= first])
                moved, slope = divergence(states[taught:], self._model.head, before)
                self.standing.note(numbers[taught:], moved - np.float32(self._settings.most_drift), step, "mean")
                slopes.append(slope * np.float32(weights[1]))
            if learn:
                back(np.concatenate(slopes))
            del states, back  # all that this row's way back needed, before the next row comes
            self._breath()

    def _tokens(self, numbers: Iterable[int]) -> int:
        """Count the tokens that carry the loss."""
        return sum(int(self._read.documents[i].answer.sum()) for i in numbers)

    def _rows(self, chosen: Sequence[int]) -> list[list[int]]:
        """Cut documents into rows of about _ROW_TOKENS: what a row's way back needs is kept until it was gone."""
        rows, tokens = list[list[int]](), _ROW_TOKENS
        for number in chosen:
            if tokens >= _ROW_TOKENS:
                rows.append([])
                tokens = self._read.start
            rows[-1].append(number)
            tokens += len(self._read.rests[number])
        return rows

    def _look_again(self, step: int) -> bool:
        """Check all documents. Returns whether each has reached its goal."""
        self._see(range(len(self._read.documents)), step, learn=False)
        return self.standing.reached
