"""Learns a style from ratings: liked answers become likelier, the others less likely, and the rest of the model stays near.

Nobody says why an answer was liked: it is shorter, has no lists, is more formal. Two losses find it. The words of liked answers are
learned as they are; and each rated answer as a whole is moved to its side of where the model was (KTO, arXiv 2402.01306), which weighs
answers on the wrong side and ignores those far on the right one. Differs from the source: the reference point z is the mean move of the
rated answers themselves, not of mismatched ones, which would have to be read too.

If bounds tell liked answers from others, the model also practises on answers of its own (`learn.practice`). Of a long answer only the
beginning counts, because the style shows there and in where a short answer ends.

A term in every step holds ordinary text where it was. Afterwards the adapter is shrunk until held-out text costs no more than it may.

The same ratings, settings and machine give the same bytes: forgetting relies on that.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.errors import IngleError, TemplateError
from ingle.core.example import Example
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.learn.lesson import lesson_candidate
from ingle.learn.pieces import CLIP_NORM
from ingle.learn.practice import Practice, common_bounds
from ingle.learn.trainable_model import Read, TrainableModel
from ingle.learn.work import LessonError
from ingle.train.example_files import Document
from ingle.train.objectives import CHUNK, distillation, kto, log_probabilities
from ingle.train.optimisers import OptimiserSettings, Trained
from ingle.train.writing import Drawn, write_all
from ingle.tuning.low_rank_settings import LowRankSettings

# Ordinary text that the model writes itself. It limits and measures how far a style moves the model.
# Before anything is learned, the model continues a few plain beginnings, sampled at temperature 1. On such text, the mean Kullback-Leibler
# divergence from the earlier model is the extra cost of text of that kind. So drift is given in percent of the entropy, as the gate gives
# bits per byte. Every other text is held out: it is never learned from and only measures.


# Beginnings of many kinds of text.
BEGINNINGS = (
    "The history of the town", "In the early morning,", '"Where have you been?" she asked.', "According to the report,",
    "To change a tyre,", "Dear Sir or Madam,", "The committee met on Tuesday", "He had never liked the sea,", "A cell is",
    "import os\n\ndef", "After the war,", "\"I don't know,\" said the old man,", "First, wash the vegetables", "The river rises",
    "My grandmother used to say", "In this paper, we", "The price of wheat", "Q: What is the capital of Norway?\nA:",
    "Across the street", "for i in range(10):\n    ", "There are three reasons", "The train was late again.", "Light travels",
    "Minutes of the meeting\n\n",
)  # fmt: skip


class Prose:
    """Texts of the model before it learned: half of them limit the drift, half measure it."""

    def __init__(self, model: TrainableModel, tokens: int, seed: int) -> None:
        """`tokens`: most tokens of each text."""
        self._model = model
        prompts = [model.tokenizer.encode_prompt(text) for text in BEGINNINGS]
        texts = write_all(model.module, prompts, tokens, model.tokenizer.eos_ids, Drawn(len(prompts), tokens, 1.0, [seed, 2]))
        documents = [Document(np.array(p + t, np.int32), np.arange(len(p + t)) >= len(p)) for p, t in zip(prompts, texts, strict=True)]
        self._held, self._back = documents[::2], documents[1::2]
        self._read = model.read(self._held)
        self._read_back = model.read(self._back)
        self._before = [self._states(self._read, [number]) for number in range(len(self._held))]
        self._before_back = torch.cat([self._states(self._read_back, [number]) for number in range(len(self._back))])
        self._entropy = _entropy(self._before_back, model.head)

    def divergence(self, chosen: Sequence[int]) -> Tensor:
        """Return the mean drift on some of the limiting texts, in nats a token. Numbers wrap around."""
        numbers = sorted({number % len(self._held) for number in chosen})
        row, x = self._read.row(numbers)
        states, before = self._model.states(row, x), torch.cat([self._before[number] for number in numbers])
        return distillation(states, self._model.head, lambda at: before[at] @ self._model.head.T) / len(before)

    @torch.no_grad()
    def drift(self) -> float:
        """Return by how many percent the held-out texts cost more nats than before."""
        after = torch.cat([self._states(self._read_back, [number]) for number in range(len(self._back))])
        moved = distillation(after, self._model.head, lambda at: self._before_back[at] @ self._model.head.T)
        return 100 * float(moved) / self._entropy

    @torch.no_grad()
    def _states(self, read: Read, numbers: Sequence[int]) -> Tensor:
        row, x = read.row(numbers)
        return self._model.states(row, x)


@torch.no_grad()
def _entropy(states: Tensor, head: Tensor) -> float:
    """Return the entropy summed over rows, in nats."""
    total = 0.0
    for part in torch.split(states, CHUNK):
        logs = (part @ head.T).float().log_softmax(-1)
        total -= float((logs.exp() * logs).sum())
    return total


_SHRINK, _LEAST_FACTOR = 0.85, 0.3
_SURE = 0.999  # bounds ln (1 - p); a likelier token was no choice and stays
Tensors = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float16]]"]


def teach_style(model: TrainableModel, settings: StyleSettings, examples: Sequence[Example]) -> tuple[Tensors, dict[str, float | str]]:
    """Return the adapter's tensors and a report for some rated answers. Raises LessonError for examples that can't be used."""
    began = time.perf_counter()
    if not examples or any(example.rating == 0 or not example.answer.strip() for example in examples):
        raise LessonError("examples", "must be answers with a thumb up or down each", f"{len(examples)}", "Rate some answers first.")
    examples, documents = _readable(model, settings, examples)
    bounds = common_bounds(*([one.answer for one in examples if (one.rating > 0) is side] for side in (True, False)))
    optimiser = OptimiserSettings(learning_rate=settings.learning_rate, beta2=0.99)
    with model.learning(settings.seed, optimiser) as trained:
        course = _Course(model, settings, trained, documents, torch.tensor([one.rating > 0 for one in examples]))
        own, practice = 0, Practice(model, settings, examples, bounds)
        for number in range(settings.rounds if bounds else 0):
            written, slips = practice.round(number)
            documents_ = [document for one in written if (document := one.document(model, settings)) is not None]
            own += len(documents_)
            course.run(documents_, [*slips, *practice.blanks(written)], settings.own_epochs)
        if not own:
            course.run([], [], settings.epochs)
        drift, shrunk = course.draw_back()
        tensors = {name: values.astype(np.float16) for name, values in model.tensors().items()}
        right = course.right()
    report: dict[str, float | str] = {"lesson": "style", "steps": course.steps, "right": right, "bounds": len(bounds), "own": own}
    report |= {"slips": course.slips, "drift": drift, "shrunk": shrunk}
    return tensors, {**report, "seconds": time.perf_counter() - began}


def _readable(model: TrainableModel, settings: StyleSettings, examples: Sequence[Example]) -> tuple[list[Example], list[Document]]:
    """Return the examples with their documents, without earlier turns if these don't fit. Raises LessonError with the ids of those that
    are too long even so."""

    def read(one: Example) -> tuple[Example, Document]:
        return one, model.answered(one.before, one.question, one.answer, settings.max_tokens, settings.answer_tokens)

    pairs, unread = list[tuple[Example, Document]](), dict[str, IngleError]()
    for one in examples:
        try:
            try:
                pairs.append(read(one))
            except LessonError:
                pairs.append(read(replace(one, before=())))
        except (LessonError, TemplateError) as error:
            unread[one.id] = error
    if unread:
        first = next(iter(unread.values()))
        raise LessonError(first.field, first.rule, first.got, first.cure, unread)
    return [one for one, _ in pairs], [document for _, document in pairs]


class _Course:
    """The training of one style: the rated answers with their earlier likelihoods; and in each run, own answers to make likelier."""

    def __init__(self, model: TrainableModel, settings: StyleSettings, trained: Trained, rated: Sequence[Document], liked: Tensor) -> None:
        self._model, self._settings, self._trained, self._rated, self._thumbs = model, settings, trained, rated, liked
        self._ends = torch.tensor(sorted(model.tokenizer.eos_ids))
        self._prose = Prose(model, settings.prose_tokens, settings.seed)
        self._begin([], [])
        self._before = self._now()
        self.steps, self.slips = 0, 0

    def run(self, own: Sequence[Document], slips: Sequence[Document], epochs: int) -> None:
        """Train for some epochs. `slips`: documents whose marked tokens should become less likely."""
        self._begin(own, slips)
        self.slips += len(slips)
        for epoch in range(epochs):
            for some in self._batches(epoch):
                self._loss(some).backward()  # type: ignore[no-untyped-call]
                self._trained.collect()
                norm = float(self._trained.norm())
                for group in self._trained.groups:
                    group.gradient.mul_(min(1.0, CLIP_NORM / max(norm, 1e-12)))
                self.steps += 1
                self._trained.step(self.steps, 1.0)

    def right(self) -> float:
        """Return the share of the rated answers that moved to their side."""
        return float(((self._now() > self._before) == self._thumbs).float().mean())

    def draw_back(self) -> tuple[float, float]:
        """Shrink the adapter until ordinary text costs no more than it may. Returns drift in percent, and the factor."""
        factor = 1.0
        while (drift := self._prose.drift()) > self._settings.most_drift and factor > _LEAST_FACTOR:
            self._model.shrink(_SHRINK)
            factor *= _SHRINK
        return drift, factor

    def _begin(self, own: Sequence[Document], slips: Sequence[Document]) -> None:
        self._read = self._model.read([*self._rated, *own, *slips])
        self._liked = torch.cat([self._thumbs, torch.arange(len(own) + len(slips)) < len(own)])

    def _batches(self, epoch: int) -> list[list[int]]:
        """Return batches of every answer once, with rated and own, liked and other ones mixed evenly."""
        draw, numbers = np.random.default_rng([self._settings.seed, self.steps, epoch]), np.arange(len(self._liked))
        rated, liked = numbers < len(self._rated), self._liked.numpy()
        sides = [draw.permutation(numbers[(rated == one) & (liked == side)]) for one in (True, False) for side in (True, False)]
        place = np.concatenate([(np.arange(len(side)) + 0.5) / max(1, len(side)) for side in sides])
        order = np.concatenate(sides)[np.argsort(place, kind="stable")].tolist()
        size = self._settings.batch_documents
        return [sorted(order[start : start + size]) for start in range(0, len(order), size)]

    def _loss(self, some: Sequence[int]) -> Tensor:
        words, owners, targets = self._words(some)
        numbers = torch.tensor(some)
        rated, liked = numbers < len(self._rated), self._liked[some]
        loss = words.new_zeros(())
        if rated.any():
            whole = words.new_zeros(len(some)).index_add(0, owners, words)[rated]
            before = self._before[numbers[rated]]
            moved = (whole - before).detach().mean().clamp(min=0)
            loss = kto(whole, before, moved, liked[rated], self._settings.beta) / int(rated.sum())
        chosen = liked[owners]
        if chosen.any():
            weights = torch.where(torch.isin(targets[chosen], self._ends), self._settings.end_weight, 1.0)
            loss = loss - self._settings.words_weight * (weights * words[chosen]).sum() / weights.sum()
        slips = ~(liked | rated)[owners]
        if slips.any():
            loss = loss - self._settings.slip_weight * torch.log1p(-words[slips].exp().clamp(max=_SURE)).mean()
        if self._settings.prose_weight:
            step = self._settings.prose_documents
            loss = loss + self._settings.prose_weight * self._prose.divergence(range(self.steps * step, (self.steps + 1) * step))
        return loss

    def _words(self, some: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-probabilities of all answers' tokens, the place in `some` of each token's answer, and the token ids."""
        row, x = self._read.row(some)
        return log_probabilities(self._model.states(row, x), self._model.head, row.targets), row.learnt, row.targets

    @torch.no_grad()
    def _now(self) -> Tensor:
        """Return the log-probability of each rated answer, float32 [rated]."""
        count = len(self._rated)
        sums = torch.empty(count)
        for start in range(0, count, self._settings.batch_documents):
            some = list(range(start, min(start + self._settings.batch_documents, count)))
            words, owners, _ = self._words(some)
            sums[some] = words.new_zeros(len(some)).index_add(0, owners, words)
        return sums


class StyleTeacher:
    """Holds the module in memory and teaches one style after another. Each begins with the unchanged model."""

    def __init__(self, home: Home, kept: Kept, shape: LessonSettings, styles: StyleSettings) -> None:
        """Reads the weights, in a second or two; `shape` is the adapter's. Raises the errors of opening a model, ConfigError for settings
        that don't fit it."""
        self.shape, self.styles = shape, styles
        low_rank = LowRankSettings(shape.rank, shape.alpha, shape.targets)
        self.model = TrainableModel(home, kept, shape.layers, low_rank, shape.precision, shape.threads)

    def style(self, examples: Sequence[Example]) -> Candidate:
        """Return the candidate of some rated answers. Raises LessonError if they can't be learned from."""
        tensors, report = teach_style(self.model, self.styles, examples)
        settings = digest_json([self.shape.digest, self.styles.digest])
        return lesson_candidate(self.model.kept, "style", examples, tensors, settings, self.styles.seed, report)
