"""Subject: the model that is measured, as functions. Whoever holds a model binds them: see `engine.scoring`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.message import Request
from ingle.model.tokenizer import Tokenizer

Nats = npt.NDArray[np.float64]
"""Natural log-probabilities, one per token."""
Task = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Context tokens (at least one), and endings (of at least one token each) whose log-probabilities are asked for, token by token."""


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
    digest: str
    """Digest of the model as it answers: base, deltas and format."""
    context_length: int
    """Most tokens that it can read."""
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
