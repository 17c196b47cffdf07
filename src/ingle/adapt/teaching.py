"""The teacher: what a user taught → a candidate that says it in whatever words it is asked.

A lesson asks each question in many wordings and moves a low-rank addition to the upper layers until the answer is certain in all of them:
every token likelier than all others together by a margin, which is when writing it freely writes it. Questions near to it are asked too,
and what the model answers them is held where it was (the Kullback-Leibler divergence from the model as it is).

The same examples, settings and machine give the same bytes: that is how something is forgotten, by learning all the rest again.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingle.adapt.pupil import LessonError, Pupil, Read
from ingle.adapt.settings import LessonSettings
from ingle.adapt.wordings import contrasts, wordings
from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.train.encode import Document
from ingle.train.losses import cross_entropy, distillation
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.tuning.low_rank import LowRankSettings

CLIP_NORM = 1.0
KIND = "lora"


class Teacher:
    """Keeps the module in memory, and teaches it one lesson after another; each begins with the model as it is kept."""

    def __init__(self, home: Home, kept: Kept, settings: LessonSettings = LessonSettings()) -> None:  # noqa: B008 - frozen
        """Reads the weights, which takes a second or two. Raises what opening the model raises, ConfigError for settings that don't fit."""
        self.settings = settings
        low_rank = LowRankSettings(settings.rank, settings.alpha, settings.targets)
        self.pupil = Pupil(home, kept, settings.layers, low_rank, settings.precision, settings.threads)

    def lesson(self, examples: Sequence[Example]) -> Candidate:
        """Corrections become a candidate. Raises LessonError for some that can't be taught."""
        began, settings = time.perf_counter(), self.settings
        asked = [example for example in examples if example.question.strip() and example.answer.strip()]
        if not asked or len(asked) < len(examples):
            raise LessonError("examples", "must have a question and an answer each", f"{len(asked)} of {len(examples)} do")
        optimiser = OptimiserSettings(learning_rate=settings.learning_rate, beta2=0.99)
        with self.pupil.learning(settings.seed, optimiser) as trained:
            course = _Course(self.pupil, settings, asked)
            steps = course.run(trained)
            tensors = {name: values.astype(np.float16) for name, values in self.pupil.tensors().items()}
        report = {
            "lesson": "answers", "steps": steps, "certainty": course.certainty, "drift": course.drift, "wordings": course.taught,
            "contrasts": len(course.read.documents) - course.taught, "seconds": time.perf_counter() - began,
        }  # fmt: skip
        return candidate(self.pupil.kept, "answers", asked, tensors, settings.digest, settings.seed, report)


def candidate(
    kept: Kept, kind: str, examples: Sequence[Example], tensors: dict[str, Any], settings: str, seed: int, report: dict[str, Any]
) -> Candidate:
    """A lesson as a candidate. Its origin names examples by their ids: none of their words are in it."""
    ids = [example.id for example in examples]
    origin = {LESSON: kind, "examples": " ".join(ids), "settings": settings, "seed": str(seed)}
    return Candidate(f"lesson-{digest_json(ids)[:12]}", KIND, kept.digest, tensors, origin, report)


@dataclass(slots=True, eq=False)
class _Course:
    """What is read in one lesson: documents that are taught, then contrasts."""

    pupil: Pupil
    settings: LessonSettings
    examples: Sequence[Example]
    read: Read = field(init=False)
    taught: int = field(init=False)
    """How many of the documents are taught."""
    sure: list[float] = field(init=False)
    """Of each taught document, the log-probability of its least likely token, as it was last seen."""
    drift: float = 0.0
    """Nats a token by which contrasts had moved when they were last seen."""
    _before: dict[int, Tensor] = field(init=False)
    """Of each contrast, the final states of the model as it is."""

    def __post_init__(self) -> None:
        documents = self._documents()
        self.taught = len(documents)
        self.sure = [-math.inf] * self.taught
        self.read = self.pupil.read([*documents, *self.pupil.as_before(self._contrasts(), self.settings.contrast_tokens)])
        self._before = self._unmoved()

    @property
    def certainty(self) -> float:
        """The least probability that any token of any answer was last seen with."""
        return math.exp(min(self.sure))

    def run(self, trained: Trained) -> int:
        """Takes steps until all is certain, or there were too many. Returns how many."""
        settings, goal = self.settings, math.log(self.settings.certainty)
        most = settings.max_steps + settings.more_steps * (len(self.examples) - 1)
        for number in range(most):
            chosen = self._chosen(number)
            loss = self._loss(chosen, number)
            if number >= settings.min_steps and min(self.sure) >= goal and (len(chosen) == self.taught or self._all_sure(goal)):
                return number
            loss.backward()  # type: ignore[no-untyped-call]
            trained.collect()
            norm = float(trained.norm())
            for group in trained.groups:
                group.gradient.mul_(min(1.0, CLIP_NORM / max(norm, 1e-12)))
            trained.step(number + 1, 1.0)
        self._all_sure(goal)
        return most

    def _documents(self) -> list[Document]:
        settings = self.settings
        return [
            self.pupil.answered(example.before, wording, example.answer, settings.max_tokens)
            for example in self.examples
            for wording in wordings(example.question, settings.wordings, settings.seed)
        ]

    def _contrasts(self) -> list[str]:
        settings, taught = self.settings, {example.question.strip().lower() for example in self.examples}
        asked = [text for example in self.examples for text in contrasts(example.question, settings.contrasts, settings.seed)]
        return [text for text in dict.fromkeys(asked) if text.lower() not in taught]

    @torch.no_grad()
    def _unmoved(self) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        numbers = range(self.taught, len(self.read.documents))
        for at in range(0, len(numbers), self.settings.batch_documents):
            some = numbers[at : at + self.settings.batch_documents]
            row, x = self.read.row(some)
            states, learnt = self.pupil.states(row, x), row.learnt
            found |= {number: states[learnt == place] for place, number in enumerate(some)}
        return found

    def _chosen(self, number: int) -> list[int]:
        """The taught documents of a step: those furthest from being certain."""
        if self.taught <= self.settings.batch_documents:
            return list(range(self.taught))
        order = sorted(range(self.taught), key=lambda i: (self.sure[i], (i * 7919 + number) % self.taught))
        return sorted(order[: self.settings.batch_documents])

    def _loss(self, chosen: Sequence[int], number: int) -> Tensor:
        settings, contrasts_ = self.settings, len(self.read.documents) - self.taught
        most = min(contrasts_, settings.contrasts)
        others = [self.taught + (number * most + i) % contrasts_ for i in range(most)] if settings.contrast_weight else []
        row, x = self.read.row([*chosen, *others])
        states, learnt, head = self.pupil.states(row, x), row.learnt, self.pupil.head
        taught = int((learnt < len(chosen)).sum())
        seen = torch.empty(taught)
        loss = cross_entropy(states[:taught], head, row.targets[:taught], seen=seen) / taught
        self._note(chosen, seen, learnt[:taught])
        if others:
            before = torch.cat([self._before[other] for other in others])
            drift = distillation(states[taught:], head, lambda at: before[at] @ head.T) / len(before)
            self.drift = float(drift.detach())
            loss = loss + settings.contrast_weight * drift
        return loss

    def _note(self, chosen: Sequence[int], seen: Tensor, learnt: Tensor) -> None:
        for place, number in enumerate(chosen):
            self.sure[number] = float(seen[learnt == place].min())

    @torch.no_grad()
    def _all_sure(self, goal: float) -> bool:
        """Looks at every taught document again."""
        for at in range(0, self.taught, self.settings.batch_documents):
            some = list(range(self.taught))[at : at + self.settings.batch_documents]
            row, x = self.read.row(some)
            seen, states = torch.empty(len(row.rows)), self.pupil.states(row, x)
            cross_entropy(states, self.pupil.head, row.targets, seen=seen)
            self._note(some, seen, row.learnt)
        return min(self.sure) >= goal
