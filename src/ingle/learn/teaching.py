"""The teacher with PyTorch: of styles, and of lessons to models with layers that learn/lesson.py can't train through yet.

A lesson asks each question in many wordings and trains a low-rank adapter of the upper layers until the answer is certain in all: every
token is likelier than all others together by a margin, so that free writing gives it. It also asks near questions and holds their
answers where they were, by the Kullback-Leibler divergence from the model as it is.

The same examples, settings and machine give the same bytes. Forgetting relies on that: all the rest is learned again.
"""

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.adam import CLIP_NORM
from ingle.learn.lesson import check_usable, lesson_candidate, near_questions
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.standing import LessonStanding, allowed_steps
from ingle.learn.style import teach_style
from ingle.learn.trainable_model import TrainableModel
from ingle.learn.wordings import wordings
from ingle.train.losses import cross_entropy, distillation
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.tuning.low_rank import LowRankSettings


class Teacher:
    """Holds the module in memory and teaches one lesson after another. Each begins with the unchanged model."""

    def __init__(
        self, home: Home, kept: Kept, settings: LessonSettings = LessonSettings(), styles: StyleSettings = StyleSettings(),  # noqa: B008 - frozen
    ) -> None:  # fmt: skip
        """Reads the weights, in a second or two. Raises the errors of opening a model, ConfigError for settings that don't fit it."""
        self.settings, self.styles = settings, styles
        low_rank = LowRankSettings(settings.rank, settings.alpha, settings.targets)
        self.model = TrainableModel(home, kept, settings.layers, low_rank, settings.precision, settings.threads)

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some corrections. Raises LessonError if they can't be taught."""
        began, settings = time.perf_counter(), self.settings
        check_usable(examples)
        optimiser = OptimiserSettings(learning_rate=settings.learning_rate, beta2=0.99)
        with self.model.learning(settings.seed, optimiser) as trained:
            course = _Course(self.model, settings, examples)
            steps = course.run(trained)
            tensors = {name: values.astype(np.float16) for name, values in self.model.tensors().items()}
        report = course.standing.report(steps, time.perf_counter() - began)
        return lesson_candidate(self.model.kept, "answers", examples, tensors, settings.digest, settings.seed, report)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from."""
        tensors, report = teach_style(self.model, self.styles, examples)
        settings = digest_json([self.settings.digest, self.styles.digest])
        return lesson_candidate(self.model.kept, "style", examples, tensors, settings, self.styles.seed, report)


class _Course:
    """The training of one lesson: its taught documents, then its contrasts."""

    def __init__(self, model: TrainableModel, settings: LessonSettings, examples: Sequence[Example]) -> None:
        self._model, self._settings, self._most = model, settings, allowed_steps(settings, examples)
        documents = [
            model.answered(example.before, wording, example.answer, settings.max_tokens)
            for example in examples
            for wording in wordings(example.question, settings.wordings, settings.seed)
        ]
        self._read = model.read([*documents, *model.as_before(near_questions(settings, examples), settings.contrast_tokens)])
        self.standing = LessonStanding(settings, len(documents), len(self._read.documents))
        self._before = self._unmoved()

    def run(self, trained: Trained) -> int:
        """Train until all documents reach their goals, or the steps run out. Returns the number of steps."""
        for number in range(self._most):
            if number >= self._settings.min_steps and self.standing.reached and self._look_again(number):
                return number
            self._loss(self.standing.chosen(number), number).backward()  # type: ignore[no-untyped-call]
            trained.collect()
            norm = float(trained.norm())
            for group in trained.groups:
                group.gradient.mul_(min(1.0, CLIP_NORM / max(norm, 1e-12)))
            trained.step(number + 1, 1 / (1 + number / self._settings.half_rate_after))
        self._look_again(self._most)
        return self._most

    @torch.no_grad()
    def _unmoved(self) -> dict[int, Tensor]:
        """By contrast: its final states in the unchanged model."""
        unmoved: dict[int, Tensor] = {}
        for some in self.standing.parts(self.standing.taught):
            row, x = self._read.row(some)
            states, learnt = self._model.states(row, x), row.learnt
            unmoved |= {number: states[learnt == place] for place, number in enumerate(some)}
        return unmoved

    def _loss(self, chosen: Sequence[int], number: int) -> Tensor:
        """Return the mean loss over taught tokens plus the weighted drift of contrasts. Notes each document's distance."""
        row, x = self._read.row(chosen)
        states, learnt, head = self._model.states(row, x), row.learnt, self._model.head
        numbers = np.array(chosen)[learnt.numpy()]
        taught = int((numbers < self.standing.taught).sum())
        seen = torch.empty(taught)
        loss = cross_entropy(states[:taught], head, row.targets[:taught], seen=seen) / max(1, taught)
        self.standing.note(numbers[:taught], (math.log(self._settings.certainty) - seen).numpy(), number, "most")
        if others := [self._before[i] for i in chosen if i >= self.standing.taught]:
            before, moved = torch.cat(others), torch.empty(len(numbers) - taught)
            drift = distillation(states[taught:], head, lambda at: before[at] @ head.T, seen=moved) / len(moved)
            self.standing.note(numbers[taught:], (moved - self._settings.most_drift).numpy(), number, "mean")
            loss = loss + self._settings.contrast_weight * drift
        return loss

    @torch.no_grad()
    def _look_again(self, number: int) -> bool:
        """Check all documents. Returns whether each has reached its goal."""
        for some in self.standing.parts():
            self._loss(some, number)
        return self.standing.reached
