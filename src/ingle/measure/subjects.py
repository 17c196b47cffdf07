"""Subject: the model that is measured, as functions. Whoever holds a model binds them: see `engine.scoring`."""

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import Interrupted, KernelError, RequestError
from ingle.core.files import os_errors
from ingle.core.message import Request
from ingle.core.progress import Progress, silent
from ingle.home.place import Home
from ingle.measure.data_sets import Question
from ingle.measure.intervals import Floats
from ingle.model.tokenizer import Tokenizer

Nats = npt.NDArray[np.float64]  # natural log-probabilities, one per token
# Context tokens (at least one), and endings (of at least one token each) whose log-probabilities are asked for, token by token.
Task = tuple[Sequence[int], Sequence[Sequence[int]]]


class Scorer(Protocol):
    """A function that computes how likely the endings of many tasks are."""

    def __call__(self, tasks: Sequence[Task]) -> Iterator[tuple[int, list[Nats]]]:
        """Yield the number of each task with the log-probabilities of its endings, in any order. Ends early if it is stopped."""
        ...


class Writer(Protocol):
    """A function that answers many requests."""

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        """Yield the number of each request with the text of its answer, in any order. Ends early if it is stopped."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that can be measured."""

    name: str
    digest: str  # digest of the model as it answers: base, deltas and format
    context_length: int  # most tokens that it can read
    tokenizer: Tokenizer
    score: Scorer
    write: Writer


def begin_id(tokenizer: Tokenizer) -> int:
    """Token that stands before a text, so that the text's first token is conditional on something and counts.

    It is the token that begins every prompt where the model wants one, else <|endoftext|> (which stood between the documents that such
    models were trained on), else the token that ends an answer.
    """
    if tokenizer.facts.add_bos and tokenizer.bos_id is not None:
        return tokenizer.bos_id
    return tokenizer.control.get("<|endoftext|>", tokenizer.facts.eos_ids[0])


# Cache of measured items, in the home: an interrupted run goes on, a larger one begins where a small one ended.
# One file for each model and suite, one JSON object a line, only ever appended to. It may be deleted at any time.


Row = dict[str, Any]  # result of one item, as plain values
VERSION = 1  # changes when rows mean something else than before


class Finished:
    """Finished items of one model and suite, by the digest of all that the model was asked."""

    def __init__(self, home: Home, suite: str, model_digest: str) -> None:
        self.path = home.root / "cache" / "measure" / f"{suite}-{digest_json([VERSION, suite, model_digest])[:32]}.jsonl"
        self._rows: dict[str, Row] = {}
        lines = [b""]
        with os_errors(self.path):
            if self.path.exists():
                lines = self.path.read_bytes().split(b"\n")
        for line in lines:
            self._remember(line)
        self._cut = bool(lines[-1])  # whether the last line was cut off, by a kill or a full disk

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Row | None:
        """Return the result of an item, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep an item at once. Raises HomeError if the disk refuses."""
        line = json.dumps({"key": key, "row": dict(row)}, ensure_ascii=False).encode() + b"\n"
        with os_errors(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"\n" + line if self._cut else line)
        self._cut = False
        self._rows[key] = dict(row)

    def _remember(self, line: bytes) -> None:
        try:
            table = json.loads(line)
            self._rows[table["key"]] = table["row"]
        except (ValueError, KeyError, TypeError):
            return  # the line was cut off: its item is measured again


class Passing:
    """A cache that keeps nothing: for a single measurement, or one that must not be written down."""

    def get(self, _key: str) -> Row | None:
        """Return None: nothing is cached."""
        return None

    def add(self, _key: str, _row: Mapping[str, Any]) -> None:
        """Do nothing."""


# Gathering of results: finished items come from the cache, the model is asked for the rest, and each is kept as soon as it is there.


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """One item, made ready: the questions to the model, and what is noted of its answer. Either `tasks` or a `request`."""

    id: str
    key: str  # digest of all that the answer depends on, apart from the model
    # Question and right answer as plain values, for the data digest. Independent of the model's vocabulary.
    asked: Any
    tasks: tuple[Task, ...] = ()
    # Makes the row from the log-probabilities: for each task, for each ending, token by token.
    scored: Callable[[Sequence[Sequence[Nats]]], Row] | None = None
    request: Request | None = None
    said: Callable[[str], Row] | None = None  # makes the row from the answer to `request`; without it the row holds the answer's text


def gather(
    subject: Subject, plans: Sequence[ItemPlan], finished: Finished | Passing, label: str = "items", progress: Progress = silent
) -> list[Row]:
    """Return the rows of all items, in their order. Raises Interrupted if the model stopped early, and the model's errors."""
    rows = {plan.key: row for plan in plans if (row := finished.get(plan.key)) is not None}
    todo = list({plan.key: plan for plan in plans if plan.key not in rows}.values())
    total = len(rows) + len(todo)
    progress(label, len(rows), total)

    def done(plan: ItemPlan, row: Row) -> None:
        finished.add(plan.key, row)
        rows[plan.key] = row
        progress(label, len(rows), total)

    _score(subject, [plan for plan in todo if plan.request is None], done)
    _write(subject, [plan for plan in todo if plan.request is not None], done)
    if len(rows) < total:
        got, cure = f"{len(rows)} of {total} items", "Finished items are kept. Run the same command to go on from there."
        raise Interrupted("measurement", "was interrupted", got, cure)
    return [rows[plan.key] for plan in plans]


def _score(subject: Subject, plans: Sequence[ItemPlan], done: Callable[[ItemPlan, Row], None]) -> None:
    places = [(plan, number) for plan in plans for number in range(len(plan.tasks))]
    arrived: dict[str, dict[int, list[Nats]]] = {plan.key: {} for plan in plans}
    for index, values in subject.score([plan.tasks[number] for plan, number in places]) if places else ():
        plan, number = places[index]
        parts = arrived[plan.key]
        parts[number] = values
        if len(parts) == len(plan.tasks):
            del arrived[plan.key]
            assert plan.scored is not None
            done(plan, plan.scored([parts[number] for number in range(len(parts))]))


def _write(subject: Subject, plans: Sequence[ItemPlan], done: Callable[[ItemPlan, Row], None]) -> None:
    requests = [plan.request for plan in plans if plan.request is not None]
    for index, text in subject.write(requests) if requests else ():
        plan = plans[index]
        done(plan, {"text": text} if plan.said is None else plan.said(text))


# Multiple choice by log-likelihood: the answer that the model finds likeliest is its choice. A tie with the right answer is wrong.
# Two rules, both reported: the sum of an answer's log-probabilities, and that sum per byte of the answer, which doesn't punish long ones.
# Either the answers' own words are scored (`texts`), or they are listed in the prompt and their letters are scored (`letters`).


Style = Literal["texts", "letters"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the model reads it."""

    given: str
    endings: tuple[str, ...]  # texts that are scored, one for each answer
    nbytes: tuple[int, ...]  # divisor of each ending's score: bytes of its words without the space before them


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one question's answers."""

    nats: tuple[float, ...]  # log-probability of each ending
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


def choice_columns(right: Sequence[bool]) -> Floats:
    """[questions, 2]: 1 for a right answer, and 1; their ratio of sums is the accuracy."""
    return np.array([[float(one), 1.0] for one in right], np.float64).reshape(len(right), 2)


def majority(training: Sequence[Question], measured: Sequence[Question]) -> list[bool]:
    """Whether the answer that is right most often in training is right for each question; the first in order among equals."""
    golds = [question.options[question.gold] for question in training]
    most = max(sorted(set(golds)), key=golds.count)
    return [question.options[question.gold] == most for question in measured]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
