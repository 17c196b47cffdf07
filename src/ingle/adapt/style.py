"""A style from thumbs alone: answers that were liked become likelier, the others less likely, near the model as it is.

Nobody says what was liked about them: shorter, no lists, more formal. Two forces find it. The words of liked answers are learned as they
stand, few as they are; and each rated answer, as a whole, is moved to its side of where the model was (KTO, arXiv 2402.01306), which weighs
those that are on the wrong side still and lets go of those far on the right one. Differs from the source: the reference point z is the
mean move of the rated answers themselves, not of mismatched ones, which would have to be read too.

Where what is liked can be seen, disliked answers whose beginning has it lend that beginning (`adapt.forms`): thumbs up are rare where the
model hardly ever writes what is liked. Of a long answer only the beginning counts: the style shows there, and where a short one ends.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ingle.adapt.forms import beginning, common_forms
from ingle.adapt.pupil import LessonError, Pupil, Read
from ingle.adapt.settings import StyleSettings
from ingle.core.example import Example
from ingle.train.encode import Document
from ingle.train.losses import log_probabilities
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.preference import kto

CLIP_NORM = 1.0
Tensors = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float16]]"]


def teach_style(pupil: Pupil, settings: StyleSettings, examples: Sequence[Example]) -> tuple[Tensors, dict[str, float | str]]:
    """Rated answers → the tensors of a low-rank addition, and what was seen on the way. Raises LessonError for some that can't be used."""
    began = time.perf_counter()
    if not examples or any(example.rating == 0 or not example.answer.strip() for example in examples):
        raise LessonError("examples", "must be answers with a thumb up or down each", f"{len(examples)}", "Rate some answers first.")
    documents = [
        _cut(pupil.answered(one.before, one.question, one.answer, settings.max_tokens), settings.answer_tokens) for one in examples
    ]
    optimiser = OptimiserSettings(learning_rate=settings.learning_rate, beta2=0.99)
    with pupil.learning(settings.seed, optimiser) as trained:
        course = _Course(pupil, settings, pupil.read(documents), torch.tensor([one.rating > 0 for one in examples]))
        steps = course.run(trained)
        tensors = {name: values.astype(np.float16) for name, values in pupil.tensors().items()}
        right = course.right()
    return tensors, {"lesson": "style", "steps": steps, "right": right, "seconds": time.perf_counter() - began}


def with_beginnings(examples: Sequence[Example]) -> list[Example]:
    """The rated answers, and beside them, as liked ones, the beginnings of disliked ones that have the form of the liked (see `forms`)."""
    texts = {side: [one.answer for one in examples if (one.rating > 0) is side] for side in (True, False)}
    forms = common_forms(texts[True], texts[False])
    begun = [(one, beginning(one.answer, forms)) for one in examples if one.rating < 0]
    return [*examples, *(replace(one, answer=text, rating=1) for one, text in begun if text)]


def _cut(document: Document, most: int) -> Document:
    """Its answer's first `most` tokens."""
    stop = int(np.argmax(document.answer)) + most
    return Document(document.ids[:stop], document.answer[:stop])


class _Course:
    """One style: rated answers, and how likely they were."""

    def __init__(self, pupil: Pupil, settings: StyleSettings, read: Read, liked: Tensor) -> None:
        self._pupil, self._settings, self._read, self._liked = pupil, settings, read, liked
        self._before = self._now()

    def run(self, trained: Trained) -> int:
        """Takes all steps. Returns how many."""
        number = 0
        for epoch in range(self._settings.epochs):
            for some in self._batches(epoch):
                self._loss(some).backward()  # type: ignore[no-untyped-call]
                trained.collect()
                norm = float(trained.norm())
                for group in trained.groups:
                    group.gradient.mul_(min(1.0, CLIP_NORM / max(norm, 1e-12)))
                number += 1
                trained.step(number, 1.0)
        return number

    def right(self) -> float:
        """Share of the rated answers that moved to their side."""
        return float(((self._now() > self._before) == self._liked).float().mean())

    def _batches(self, epoch: int) -> list[list[int]]:
        """Every answer once, liked and others mixed evenly."""
        draw, numbers = np.random.default_rng([self._settings.seed, epoch]), np.arange(len(self._liked))
        sides = [draw.permutation(numbers[self._liked.numpy() == side]) for side in (True, False)]
        place = np.concatenate([(np.arange(len(side)) + 0.5) / max(1, len(side)) for side in sides])
        order = np.concatenate(sides)[np.argsort(place, kind="stable")].tolist()
        size = self._settings.batch_documents
        return [sorted(order[at : at + size]) for at in range(0, len(order), size)]

    def _loss(self, some: Sequence[int]) -> Tensor:
        words, owners = self._words(some)
        liked, before = self._liked[some], self._before[some]
        whole = words.new_zeros(len(some)).index_add(0, owners, words)
        moved = (whole - before).detach().mean().clamp(min=0)
        loss = kto(whole, before, moved, liked, self._settings.beta) / len(some)
        chosen = words[liked[owners]]
        if len(chosen):
            loss = loss - self._settings.words_weight * chosen.mean()
        return loss

    def _words(self, some: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of all answers' tokens, and whose each is, as places in `some`."""
        row, x = self._read.row(some)
        return log_probabilities(self._pupil.states(row, x), self._pupil.head, row.targets), row.learnt

    @torch.no_grad()
    def _now(self) -> Tensor:
        """Log-probability of each answer: float32 [examples]."""
        found = torch.empty(len(self._liked))
        for at in range(0, len(self._liked), self._settings.batch_documents):
            some = list(range(at, min(at + self._settings.batch_documents, len(self._liked))))
            words, owners = self._words(some)
            found[some] = words.new_zeros(len(some)).index_add(0, owners, words)
        return found
