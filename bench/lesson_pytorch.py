"""The peer of bench/lesson.py: the same lesson taught with PyTorch, by autograd."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.core.example import Example
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.learning_settings import LessonSettings
from ingle.learn.lesson import LessonStanding, allowed_steps, near_questions
from ingle.learn.pieces import CLIP_NORM
from ingle.learn.trainable_model import TrainableModel
from ingle.learn.wordings import wordings
from ingle.train.example_files import Document
from ingle.train.objectives import cross_entropy, distillation
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.writing import write_all
from ingle.tuning.low_rank_settings import LowRankSettings


class PyTorchTeacher:
    """Holds the module in memory and teaches one lesson after another. Each begins with the unchanged model."""

    def __init__(self, home: Home, kept: Kept, settings: LessonSettings) -> None:
        self.settings, low_rank = settings, LowRankSettings(settings.rank, settings.alpha, settings.targets)
        self.model = TrainableModel(home, kept, settings.layers, low_rank, settings.precision, settings.threads)

    def lesson(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return the report of a lesson."""
        began, optimiser = time.perf_counter(), OptimiserSettings(learning_rate=self.settings.learning_rate, beta2=0.99)
        with self.model.learning(self.settings.seed, optimiser) as trained:
            course = _Course(self.model, self.settings, examples)
            steps = course.run(trained)
            self.model.tensors()
        return course.standing.report(steps, time.perf_counter() - began)


def _as_before(model: TrainableModel, questions: Sequence[str], most: int) -> list[Document]:
    """Questions with the first tokens of the model's current answers."""
    prompts = [model.prompt((), question) for question in questions]
    pairs = zip(prompts, write_all(model.module, prompts, most, model.tokenizer.eos_ids), strict=True)
    return [Document(np.array(p + a, np.int32), np.arange(len(p) + len(a)) >= len(p)) for p, a in pairs]


class _Course:
    """The training of one lesson: its taught documents, then its contrasts."""

    def __init__(self, model: TrainableModel, settings: LessonSettings, examples: Sequence[Example]) -> None:
        self._model, self._settings, self._most = model, settings, allowed_steps(settings, examples)
        documents = [
            model.answered(example.before, wording, example.answer, settings.max_tokens)
            for example in examples
            for wording in wordings(example.question, settings.wordings, settings.seed)
        ]
        self._read = model.read([*documents, *_as_before(model, near_questions(settings, examples), settings.contrast_tokens)])
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
