"""Multiple choice by log-likelihood: the answer that the model finds likeliest is its choice. A tie with the right answer is wrong.

Two rules, both reported: the sum of an answer's log-probabilities, and that sum per byte of the answer, which doesn't punish long ones.
Either the answers' own words are scored (`texts`), or they are listed in the prompt and their letters are scored (`letters`).
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingle.core.errors import KernelError, RequestError
from ingle.measure.intervals import Floats
from ingle.measure.items import Question
from ingle.measure.subject import Nats, Task, begin_id
from ingle.model.tokenizer import Tokenizer

Style = Literal["texts", "letters"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model reads it."""

    given: str
    endings: tuple[str, ...]
    """Texts that are scored, one for each answer."""
    nbytes: tuple[int, ...]
    """Divisor of each ending's score: bytes of its words without the space before them."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one question's answers."""

    nats: tuple[float, ...]
    """Log-probability of each ending."""
    nbytes: tuple[int, ...]
    gold: int

    @property
    def right(self) -> bool:
        """Whether the right answer is strictly the likeliest."""
        return strictly_best(self.nats, self.gold)

    @property
    def right_per_byte(self) -> bool:
        """Whether the right answer is strictly the likeliest per byte."""
        return strictly_best([nats / nbytes for nats, nbytes in zip(self.nats, self.nbytes, strict=True)], self.gold)


def make_prompt(question: Question, stem: str, style: Style = "texts", shots: Sequence[Question] = ()) -> Prompt:
    """Make the prompt of a question, with `shots` answered before it, an empty line between each.

    `stem` is the question's frame, with `{ask}` in it; it is used for answers in their own words. Raises RequestError for an empty answer,
    or more answers than there are letters.
    """
    endings = tuple(f" {answer}" for answer in _answers(question, style))
    examples = [f"{_put(shot, stem, style)} {_answers(shot, style)[shot.gold]}" for shot in shots]
    return Prompt("\n\n".join([*examples, _put(question, stem, style)]), endings, tuple(len(ending.encode()) - 1 for ending in endings))


def _put(question: Question, stem: str, style: Style) -> str:
    if style == "texts":
        return stem.replace("{ask}", question.ask)
    listed = (f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, question.options, strict=False))
    return "\n".join([question.ask, *listed, "Answer:"])


def _answers(question: Question, style: Style) -> Sequence[str]:
    if any(not option.strip() for option in question.options) or len(question.options) > len(string.ascii_uppercase):
        raise RequestError(f"question {question.id}", "must have up to 26 answers, none of them empty", question.options)
    return question.options if style == "texts" else string.ascii_uppercase[: len(question.options)]


def make_task(tokenizer: Tokenizer, prompt: Prompt, context_length: int) -> tuple[Task, bool]:
    """Return the task for a scorer, and whether the prompt's beginning had to be left out to fit.

    Prompt and ending are encoded together, as they would be read. Where a token spans both, all endings begin before it.
    Raises RequestError for an ending that doesn't fit at all.
    """
    wholes = [tokenizer.encode(prompt.given + ending) for ending in prompt.endings]
    alone = tokenizer.encode(prompt.given)
    common = min(_common(alone, whole[:-1]) for whole in wholes)
    begins = not common or (tokenizer.facts.add_bos and tokenizer.bos_id is not None)
    begin = [begin_id(tokenizer)] if begins else []
    longest = max(len(whole) for whole in wholes) - common
    room = context_length - longest + 1 - len(begin)  # an ending's last token is not read
    if room < 1 - len(begin):
        raise RequestError("answer", f"must fit the context of {context_length} tokens", f"{longest} tokens")
    context = [*begin, *alone[max(0, common - room) : common]]
    return (context, [whole[common:] for whole in wholes]), common > room


def read_scores(question: Question, prompt: Prompt, values: Sequence[Nats]) -> Scores:
    """Sum up the log-probabilities of each ending. Raises KernelError if one of them is NaN."""
    sums = tuple(float(nats.sum()) for nats in values)
    if any(np.isnan(sums)):
        raise KernelError("log-probability", "must be a number", sums, f"The model computes NaN on question {question.id}.")
    return Scores(sums, prompt.nbytes, question.gold)


def strictly_best(values: Sequence[float], gold: int) -> bool:
    """Whether `gold` is above all others. Equal is not above: a model that finds all answers alike knows nothing."""
    return all(values[gold] > value for i, value in enumerate(values) if i != gold)


def columns(right: Sequence[bool]) -> Floats:
    """[questions, 2]: 1 for a right answer, and 1; their ratio of sums is the accuracy."""
    return np.array([[float(one), 1.0] for one in right], np.float64).reshape(len(right), 2)


def majority(training: Sequence[Question], measured: Sequence[Question]) -> list[bool]:
    """Whether the answer that is right most often in training is right for each question; the first in order among equals."""
    golds = [question.options[question.gold] for question in training]
    most = max(sorted(set(golds)), key=golds.count)
    return [question.options[question.gold] == most for question in measured]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
