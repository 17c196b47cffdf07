"""The teacher of lessons: by our own kernels, forward and back, in what serving needs anyway. It imports no PyTorch.

A lesson asks each question in many wordings and trains a low-rank addition to the upper layers until the answer is certain in all: every
token is likelier than all others together by a margin, so that free writing gives it. It also asks near questions and holds their
answers where they were, by the Kullback-Leibler divergence from the model as it is.

States below the first layer that learns never change. So lower layers are read from the file one after the other, run once over a
lesson's documents, and let go again.

The same examples, settings and machine give the same bytes. Forgetting relies on that: all the rest is learned again.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ingle.core.candidate import Candidate
from ingle.core.digest import digest_json
from ingle.core.example import Example
from ingle.core.message import Request
from ingle.core.process import release_memory
from ingle.engine.answer import write
from ingle.engine.loading import Opener
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.gate.trial import ProbeQuestion
from ingle.home.deltas import LESSON
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.kernels.cpu import has_bf16_dot
from ingle.learn.learning_settings import LessonSettings
from ingle.learn.pieces import Adam, Array, BFloat16, Float32, FrozenMatrix, LowRank, Norm
from ingle.learn.upper import UpperLayers, cross_entropy, divergence
from ingle.learn.wordings import answered, contrasts, wordings
from ingle.learn.work import LessonError
from ingle.model.checkpoint import Checkpoint
from ingle.model.template import has_template
from ingle.model.tensor import Tensor, decode
from ingle.train.example_files import Document
from ingle.train.shared_rows import DocumentRow, Integers, make_row, shared_start
from ingle.tuning.linears import chosen_layers, chosen_linears

_LOWER_TOKENS = 2048  # most tokens whose lower layers are run at once


@dataclass(frozen=True, slots=True, eq=False)
class LowerStates:
    """Documents with the states below the first layer that learns."""

    documents: tuple[Document, ...]
    start: int  # number of first tokens that all of them share
    first: Array  # [start, hidden]: of the shared start
    rests: tuple[Array, ...]  # [tokens, hidden] each: of each document's own part

    def row(self, chosen: Sequence[int]) -> tuple[DocumentRow, Array]:
        """Return a row of some documents, and the input of the first layer that learns, [T, hidden]."""
        row = make_row([self.documents[i] for i in chosen], self.start)
        return row, np.concatenate([self.first, *(self.rests[i] for i in chosen)])


class LessonModel:
    """The part of a model that is held in memory for lessons."""

    def __init__(self, home: Home, kept: Kept, settings: LessonSettings, opener: Opener) -> None:
        """Reads the upper layers. Raises the errors of `open_weights`, ConfigError for layers or targets that don't fit."""
        self.kept, self.settings = kept, settings
        self._home, self._opener, self._checkpoint = home, opener, open_weights(home, kept)
        self.tokenizer = checkpoint_tokenizer(self._checkpoint, home.base_folder(kept.base))
        config = self._checkpoint.config
        self._names = chosen_linears(config, chosen_layers(config, settings.layers), settings.targets)
        self._first = min(int(name.split(".")[2]) for name in self._names)
        bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16_dot())  # not by timing, so it never varies
        self.upper = UpperLayers.read(config, self._tensor, self._first, bf16=bf16)
        self._words = "model.embed_tokens.weight"
        self.head = _head(self._checkpoint, self._words if config.tie_embeddings else "lm_head.weight", bf16)

    def begin(self) -> list[LowRank]:
        """Begin anew with additions of nothing, and return them."""
        settings, draw = self.settings, np.random.default_rng(self.settings.seed)
        linears = {
            f"model.layers.{own.index}.{name}": linear
            for own in (layer.own for layer in self.upper.layers)
            for name, linear in own.linears.items()
        }
        self._additions = dict[str, LowRank]()
        for name, linear in linears.items():
            linear.addition = None
            if name in self._names:
                outputs, inputs = linear.weight.shape
                linear.addition = LowRank.begun(inputs, outputs, settings.rank, settings.alpha / settings.rank, draw)
                self._additions[name] = linear.addition
        return list(self._additions.values())

    def tensors(self) -> dict[str, Array]:
        """Return the delta's tensors as they are now, the scale within B."""
        found = dict[str, Array]()
        for name, one in self._additions.items():
            found |= {f"{name}.lora_A.weight": one.a, f"{name}.lora_B.weight": one.b * np.float32(one.scale)}
        return found

    def as_before(self, questions: Sequence[str]) -> list[Document]:
        """Return questions with the first tokens of the model's current answers, as it is served. Questions without one are left out."""
        most = self.settings.contrast_tokens
        if not questions or not most:
            return []
        model = self._opener(self._home, self.kept)
        texts = dict(write(model, [self._asked(question, most) for question in questions]))
        documents = list[Document]()
        for number, question in enumerate(questions):
            if texts[number].strip():
                documents.append(answered(self.tokenizer, (), question, texts[number], self.settings.max_tokens, most))
        return documents

    def read(self, documents: Sequence[Document]) -> LowerStates:
        """Run the lower layers over documents, many in a row."""
        config, start = self._checkpoint.config, shared_start(self._checkpoint.config, documents)
        parts, begin = list[list[Document]](), 0
        for number in range(1, len(documents) + 1):
            tokens = sum(len(one.ids) - start for one in documents[begin : number + 1])
            if number == len(documents) or tokens + start > _LOWER_TOKENS:
                parts.append(list(documents[begin:number]))
                begin = number
        rows = [make_row(part, start) for part in parts]
        table = self._checkpoint.tensor(self._words)
        states = [_rows_of(table, row.ids) * np.float32(config.ways.embedding_scale) for row in rows]
        nothing = UpperLayers(config, (), Norm(np.ones(1, np.float32), 0.0))
        angles = [nothing.angles(row) for row in rows]
        for index in range(self._first):
            [layer] = UpperLayers.read(config, self._tensor, index, index + 1).layers
            for number, row in enumerate(rows):
                states[number], _ = layer(states[number], row, angles[number][config.rope_of(index)], False)
        rests = [x[a:b] for row, x in zip(rows, states, strict=True) for a, b in zip(row.bounds, row.bounds[1:], strict=False)]
        return LowerStates(tuple(documents), start, states[0][:start], tuple(rests))

    def _tensor(self, name: str) -> Array:
        return self._checkpoint.tensor(name).to_float32()

    def _asked(self, question: str, most: int) -> Request:
        if has_template(self.tokenizer):
            return ProbeQuestion(question).request(most)
        return Request(prompt=question + "\n", max_tokens=most)


def _rows_of(table: Tensor, ids: Integers) -> Array:
    """The rows of some tokens, float32 [T, hidden]."""
    chosen, place = np.unique(ids, return_inverse=True)
    return decode(table.kind, table.raw[chosen])[place]


def _head(checkpoint: Checkpoint, name: str, bf16: bool) -> FrozenMatrix:
    """The output matrix; in bfloat16 it is made some rows at a time, so that it is never whole in float32."""
    tensor = checkpoint.tensor(name)
    rows, columns = tensor.shape
    if not bf16 or rows % 16 or columns % 16:
        return Float32(tensor.to_float32())
    return BFloat16.gathered(tensor.row_chunks(1 << 18), rows, columns)


# How far each document of a lesson is from its goal: taught ones first, then contrasts.


_STALE = 4  # steps after which a document that had reached its goal is checked again


class LessonStanding:
    """Each document's distance from its goal when last seen, in nats; the goal is reached at 0 or below. A taught document reaches it
    when its least likely token is certain, a contrast when it has moved no more than it may."""

    def __init__(self, settings: LessonSettings, taught: int, documents: int) -> None:
        """`taught`: how many of the documents are, the first ones."""
        self.settings, self.taught = settings, taught
        self.missing, self._seen_at = [math.inf] * documents, [-1] * documents

    @property
    def certainty(self) -> float:
        """Least probability of any token of any answer, as last seen."""
        return self.settings.certainty * math.exp(-max(self.missing[: self.taught]))

    @property
    def drift(self) -> float:
        """Largest move of a contrast, in nats a token, as last seen."""
        return max(self.missing[self.taught :], default=0.0) + self.settings.most_drift

    @property
    def reached(self) -> bool:
        """Whether each document has reached its goal, as last seen."""
        return max(self.missing) <= 0

    def report(self, steps: int, seconds: float) -> dict[str, Any]:
        return {
            "lesson": "answers", "steps": steps, "certainty": self.certainty, "drift": self.drift, "wordings": self.taught,
            "contrasts": len(self.missing) - self.taught, "seconds": seconds,
        }  # fmt: skip

    def chosen(self, step: int) -> list[int]:
        """Return the documents of a step, ascending: those that have not well reached their goals, and those not seen for long.

        At least one is a taught one. If there are too many, those furthest off are taken.
        """
        documents = range(len(self.missing))
        slack = math.log(self.settings.certainty) / 2, -self.settings.most_drift / 2  # what is only just there would not stay
        due = [i for i in documents if self.missing[i] > slack[i >= self.taught] or step - self._seen_at[i] >= _STALE]
        due.sort(key=lambda i: (-self.missing[i], self._seen_at[i], i))
        due = due[: self.settings.batch_documents]
        if not any(i < self.taught for i in due):
            due.append(max(range(self.taught), key=lambda i: (self.missing[i], -i)))
        return sorted(due)

    def note(
        self, numbers: npt.NDArray[np.int64], values: npt.NDArray[np.float32], step: int, which: Literal["most", "mean"]
    ) -> None:  # fmt: skip
        """Note distances, [tokens], of documents that were seen at a step: of each document the largest, or the mean."""
        for number in sorted(set(numbers.tolist())):
            own = values[numbers == number]
            self.missing[number] = float(own.max() if which == "most" else own.mean())
            self._seen_at[number] = step

    def parts(self, first: int = 0) -> list[list[int]]:
        """Return all documents from number `first` on, some at a time."""
        numbers, size = range(first, len(self.missing)), self.settings.batch_documents
        return [list(numbers[at : at + size]) for at in range(0, len(numbers), size)]


def allowed_steps(settings: LessonSettings, examples: Sequence[object]) -> int:
    return settings.max_steps + settings.more_steps * (len(examples) - 1)


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
