"""Samples: a few held-out examples in words, with the question, the reference, and the model's answers before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from ingle.core.errors import Interrupted
from ingle.core.message import ROLES, Request, Sampling
from ingle.measure.subjects import Subject
from ingle.model.tokenizer import Tokenizer
from ingle.train.encode import Document

_BEGUN = 24
"""Tokens of a text, which has no question, that the model is given to go on from."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out example, answered by the model before and after."""

    asked: str
    wanted: str
    before: str
    after: str


def answers(subject: Subject, documents: Sequence[Document], most_tokens: int) -> tuple[str, ...]:
    """The model's likeliest answers to these examples. Raises Interrupted."""
    greedy = Sampling(temperature=0.0, seed=0)
    requests = [Request(prompt=tuple(_prompt(one)), max_tokens=most_tokens, sampling=greedy) for one in documents]
    by_number = dict(subject.write(requests))
    if len(by_number) < len(requests):
        raise Interrupted("tune", "was interrupted", "while samples were answered", "Run the same command to go on from there.")
    return tuple(by_number[number].strip() for number in range(len(requests)))


def samples(
    tokenizer: Tokenizer, documents: Sequence[Document], before: Sequence[str], after: Sequence[str], most_tokens: int
) -> list[Sample]:
    """Return the examples with both answers, in words."""
    shown = []
    for document, first, second in zip(documents, before, after, strict=True):
        prompt = _prompt(document)
        reference = [int(token) for token in document.ids[len(prompt) :][:most_tokens] if token not in tokenizer.control_ids]
        shown.append(Sample(_question(tokenizer, prompt), tokenizer.decode(reference).strip(), first, second))
    return shown


def _prompt(document: Document) -> list[int]:
    """Token ids up to the first answer; of a text its beginning."""
    first = int(document.answer.argmax())
    if first <= 1 and len(document.ids) > 2:
        first = min(_BEGUN, len(document.ids) // 2)
    return [int(token) for token in document.ids[:first]]


def _question(tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    """Text of the prompt's last turn, without the template's marks around it."""
    parts: list[list[int]] = [[]]
    for token in prompt:
        if token in tokenizer.control_ids:
            parts.append([])
        else:
            parts[-1].append(token)
    texts = [text for part in parts if (text := tokenizer.decode(part).strip())]
    turns = [text.removeprefix(next((role for role in ROLES if text.startswith(f"{role}\n")), "")).strip() for text in texts]
    return next((text for text in reversed(turns) if text and text not in ROLES), "")
