"""The teacher: trains a lesson from what a user taught, so that the model gives the answer in any wording of the question.

A lesson asks each question in many wordings and trains a low-rank adapter of the upper layers until the answer is certain in all: every
token is likelier than all others together by a margin, so that free writing gives it. It also asks near questions and holds their
answers where they were, by the Kullback-Leibler divergence from the model as it is.

The same examples, settings and machine give the same bytes. Forgetting relies on that: all the rest is learned again.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.lesson_settings import LessonSettings, StyleSettings
from ingle.learn.style import teach_style
from ingle.learn.trainable_model import Read, TrainableModel
from ingle.learn.wordings import contrasts, wordings
from ingle.learn.work import LessonError
from ingle.train.encode import Document
from ingle.train.losses import cross_entropy, distillation
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.tuning.low_rank import LowRankSettings

CLIP_NORM = 1.0
_STALE = 4  # steps after which a document that had reached its goal is checked again
KIND = "lora"


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
        usable = [example for example in examples if example.question.strip() and example.answer.strip()]
        if not usable or len(usable) < len(examples):
            raise LessonError("examples", "must have a question and an answer each", f"{len(usable)} of {len(examples)} do")
        optimiser = OptimiserSettings(learning_rate=settings.learning_rate, beta2=0.99)
        with self.model.learning(settings.seed, optimiser) as trained:
            course = _Course(self.model, settings, usable)
            steps = course.run(trained)
            tensors = {name: values.astype(np.float16) for name, values in self.model.tensors().items()}
        report = {
            "lesson": "answers", "steps": steps, "certainty": course.certainty, "drift": course.drift, "wordings": course.taught,
            "contrasts": len(course.read.documents) - course.taught, "seconds": time.perf_counter() - began,
        }  # fmt: skip
        return candidate(self.model.kept, "answers", usable, tensors, settings.digest, settings.seed, report)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from."""
        tensors, report = teach_style(self.model, self.styles, examples)
        settings = digest_json([self.settings.digest, self.styles.digest])
        return candidate(self.model.kept, "style", examples, tensors, settings, self.styles.seed, report)


def candidate(
    kept: Kept, kind: str, examples: Sequence[Example], tensors: dict[str, Any], settings: str, seed: int, report: dict[str, Any]
) -> Candidate:
    """Return a lesson as a candidate. Its origin names examples by their ids and holds none of their words."""
    ids = [example.id for example in examples]
    origin = {LESSON: kind, "examples": " ".join(ids), "settings": settings, "seed": str(seed)}
    return Candidate(f"lesson-{digest_json(ids)[:12]}", KIND, kept.digest, tensors, origin, report)


@dataclass(slots=True, eq=False)
class _Course:
    """The training of one lesson: its taught documents, then its contrasts."""

    model: TrainableModel
    settings: LessonSettings
    examples: Sequence[Example]
    read: Read = field(init=False)
    taught: int = field(init=False)
    """Number of taught documents."""
    missing: list[float] = field(init=False)
    """Each document's distance from its goal when last seen, in nats; the goal is reached at 0 or below. A taught document reaches it
    when its least likely token is certain, a contrast when it has moved no more than it may."""
    seen_at: list[int] = field(init=False)
    """Step at which each document was last seen."""
    _before: dict[int, Tensor] = field(init=False)
    """By contrast: its final states in the unchanged model."""

    def __post_init__(self) -> None:
        documents = self._documents()
        self.taught = len(documents)
        self.read = self.model.read([*documents, *self.model.as_before(self._contrasts(), self.settings.contrast_tokens)])
        self.missing, self.seen_at = [math.inf] * len(self.read.documents), [-1] * len(self.read.documents)
        self._before = self._unmoved()

    @property
    def certainty(self) -> float:
        """Least probability of any token of any answer, as last seen."""
        return self.settings.certainty * math.exp(-max(self.missing[: self.taught]))

    @property
    def drift(self) -> float:
        """Largest move of a contrast, in nats a token, as last seen."""
        return max(self.missing[self.taught :], default=0.0) + self.settings.most_drift

    def run(self, trained: Trained) -> int:
        """Train until all documents reach their goals, or the steps run out. Returns the number of steps."""
        settings = self.settings
        most = settings.max_steps + settings.more_steps * (len(self.examples) - 1)
        for number in range(most):
            if number >= settings.min_steps and max(self.missing) <= 0 and self._look_again(number):
                return number
            self._loss(self._chosen(number), number).backward()  # type: ignore[no-untyped-call]
            trained.collect()
            norm = float(trained.norm())
            for group in trained.groups:
                group.gradient.mul_(min(1.0, CLIP_NORM / max(norm, 1e-12)))
            trained.step(number + 1, 1 / (1 + number / settings.half_rate_after))
        self._look_again(most)
        return most

    def _documents(self) -> list[Document]:
        settings = self.settings
        return [
            self.model.answered(example.before, wording, example.answer, settings.max_tokens)
            for example in self.examples
            for wording in wordings(example.question, settings.wordings, settings.seed)
        ]

    def _contrasts(self) -> list[str]:
        settings, taught = self.settings, {example.question.strip().lower() for example in self.examples}
        if not settings.contrast_weight:
            return []
        near = [text for example in self.examples for text in contrasts(example.question, settings.contrasts, settings.seed)]
        return [text for text in dict.fromkeys(near) if text.lower() not in taught]

    @torch.no_grad()
    def _unmoved(self) -> dict[int, Tensor]:
        unmoved: dict[int, Tensor] = {}
        for some in _parts(range(self.taught, len(self.read.documents)), self.settings.batch_documents):
            row, x = self.read.row(some)
            states, learnt = self.model.states(row, x), row.learnt
            unmoved |= {number: states[learnt == place] for place, number in enumerate(some)}
        return unmoved

    def _chosen(self, number: int) -> list[int]:
        """Return the documents of a step, ascending: those that have not well reached their goals, and those not seen for long.

        At least one is a taught one. If there are too many, those furthest off are taken.
        """
        documents = range(len(self.read.documents))
        slack = math.log(self.settings.certainty) / 2, -self.settings.most_drift / 2  # what is only just there would not stay
        due = [i for i in documents if self.missing[i] > slack[i >= self.taught] or number - self.seen_at[i] >= _STALE]
        due.sort(key=lambda i: (-self.missing[i], self.seen_at[i], i))
        due = due[: self.settings.batch_documents]
        if not any(i < self.taught for i in due):
            due.append(max(range(self.taught), key=lambda i: (self.missing[i], -i)))
        return sorted(due)

    def _loss(self, chosen: Sequence[int], number: int) -> Tensor:
        """Return the mean loss over taught tokens plus the weighted drift of contrasts. Notes each document's distance."""
        row, x = self.read.row(chosen)
        states, learnt, head = self.model.states(row, x), row.learnt, self.model.head
        numbers = torch.tensor(chosen)[learnt]
        taught = int((numbers < self.taught).sum())
        seen = torch.empty(taught)
        loss = cross_entropy(states[:taught], head, row.targets[:taught], seen=seen) / max(1, taught)
        goal = math.log(self.settings.certainty)
        self._note(numbers[:taught], goal - seen, number, "most")
        if others := [self._before[i] for i in chosen if i >= self.taught]:
            before, moved = torch.cat(others), torch.empty(len(numbers) - taught)
            drift = distillation(states[taught:], head, lambda at: before[at] @ head.T, seen=moved) / len(moved)
            self._note(numbers[taught:], moved - self.settings.most_drift, number, "mean")
            loss = loss + self.settings.contrast_weight * drift
        return loss

    def _note(self, numbers: Tensor, values: Tensor, step: int, which: Literal["most", "mean"]) -> None:
        for number in sorted(set(numbers.tolist())):
            own = values[numbers == number]
            self.missing[number] = float(own.max() if which == "most" else own.mean())
            self.seen_at[number] = step

    @torch.no_grad()
    def _look_again(self, number: int) -> bool:
        """Check all documents. Returns whether each has reached its goal."""
        for some in _parts(range(len(self.read.documents)), self.settings.batch_documents):
            self._loss(some, number)
        return max(self.missing) <= 0


def _parts(numbers: range, size: int) -> list[list[int]]:
    return [list(numbers[at : at + size]) for at in range(0, len(numbers), size)]
