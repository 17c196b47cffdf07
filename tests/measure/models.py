"""Models for the tests of measures: a tiny one of our own beside Hugging Face's class with the same weights, and scorers that are known."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.message import Request
from ingle.engine.answer import write
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import Source
from ingle.engine.scoring import score
from ingle.measure.subjects import Nats, Subject, Task
from tests.cli.place import write_model


def tiny_model(folder: Path) -> LanguageModel:
    """The tiny Llama of the command line's tests, in float32."""
    write_model(folder / "hf")
    return open_model(Source("tiny", folder / "hf", "tiny", folder / "packs"), "fp32")


def subject_of(model: LanguageModel) -> Subject:
    config = model.backend.config
    return Subject(
        model.name, model.backend.digest, config.context_length, model.tokenizer, partial(score, model.backend), partial(write, model)
    )  # fmt: skip


def subject_like(model: LanguageModel, rate: Callable[[Task], list[Nats]], say: Callable[[Request], str] = lambda _: "") -> Subject:
    """A model whose opinion is known: `rate` gives log-probabilities, `say` answers."""

    def scorer(tasks: Sequence[Task]) -> Iterator[tuple[int, list[Nats]]]:
        yield from reversed([(number, rate(task)) for number, task in enumerate(tasks)])  # any order will do

    def writer(requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
        yield from reversed([(number, say(request)) for number, request in enumerate(requests)])

    return Subject("known", "known", 192, model.tokenizer, scorer, writer)


def even(nats: float) -> Callable[[Task], list[Nats]]:
    """Finds every token equally likely."""
    return lambda task: [np.full(len(ending), nats) for ending in task[1]]


def oracle_nats(module: Any, given: Sequence[int], ending: Sequence[int]) -> float:
    """Hugging Face's log-probability of an ending, in float64 from its float32 logits."""
    import torch

    with torch.no_grad():
        logits = module(torch.tensor([[*given, *ending]])).logits[0].double()
    rows = torch.log_softmax(logits, dim=-1)[len(given) - 1 : -1]
    return float(rows[torch.arange(len(ending)), torch.tensor(list(ending))].sum())
