"""Bits per byte: the bits that a model needs for each byte of a text. Comparable between models with different vocabularies.

The bytes are those of the document in UTF-8 as it stands. The bits are −log₂ p of all its tokens, the first one too, which follows the
token that begins a text (`subject.begin_id`). A document longer than a window is cut. Each further window begins with tokens of the one
before, which are read again and not counted again. So every token counts once, and every byte once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingle.core.errors import KernelError, RequestError
from ingle.measure.intervals import Floats
from ingle.measure.subject import Nats, Task
from ingle.model.tokenizer import Tokenizer

WINDOW_TOKENS = 2048
"""Most tokens that are read together, with the beginning token."""
CARRY = 0.5
"""Share of a window that the next one reads again."""


@dataclass(frozen=True, slots=True)
class TextBits:
    """Bits of one document."""

    bits: float
    nbytes: int
    tokens: int
    """Tokens whose bits were counted."""
    exact: bool
    """Whether these tokens spell these bytes. A vocabulary that changes texts (unknown characters, normalisation) doesn't describe them."""


@dataclass(frozen=True, slots=True)
class TextReading:
    """A plan for reading one document."""

    tasks: tuple[Task, ...]
    nbytes: int
    exact: bool

    def bits(self, parts: Sequence[Sequence[Nats]]) -> TextBits:
        """Sum up the log-probabilities of each task's one ending. Raises KernelError if one of them is no number."""
        nats = math.fsum(-float(values.sum()) for [values] in parts)
        if not math.isfinite(nats):
            raise KernelError(
                "log-probability", "must be a finite number", nats, "The model computes NaN or gives a token no chance at all."
            )
        return TextBits(nats / math.log(2), self.nbytes, sum(len(values) for [values] in parts), self.exact)


def read_text(
    tokenizer: Tokenizer, text: str, begin: int | None, window: int = WINDOW_TOKENS, carry: float = CARRY, most_tokens: int | None = None
) -> TextReading:
    """Plan the reading of a text, in windows of at most `window` tokens.

    `begin` stands before the text. With None the first token is given, and neither its bits nor its bytes count. `most_tokens` cuts the
    text there; the bytes are then those of the remaining tokens. Raises RequestError for a text without anything to count.
    """
    ids = tokenizer.encode(text)
    cut = most_tokens is not None and len(ids) > most_tokens
    ids = ids[:most_tokens]
    counted = ids if begin is not None else ids[1:]
    if not counted:
        raise RequestError("text", "must hold at least one token to count", repr(text[:40]))
    raw, spelled = text.encode(), b"".join(map(tokenizer.token_bytes, ids))
    first = 0 if begin is not None else len(tokenizer.token_bytes(ids[0]))
    exact = raw.startswith(spelled) if cut else raw == spelled
    nbytes = (len(spelled) if cut else len(raw)) - first
    before = [begin, *ids] if begin is not None else ids
    return TextReading(tuple(windows(before, window, carry)), nbytes, exact)


def windows(ids: Sequence[int], window: int, carry: float = CARRY) -> list[Task]:
    """Tasks that together ask for every token but the first, once. Each has at most `window` tokens; its last one is not read."""
    if window < 2 or not 0 <= carry < 1:
        raise ValueError(f"a window of {window} tokens, {carry} of them again")
    again = max(1, int(window * carry))
    tasks: list[Task] = [(ids[:1], (ids[1 : window + 1],))]
    start = window + 1
    while start < len(ids):
        end = start + window + 1 - again
        tasks.append((ids[start - again : start], (ids[start:end],)))
        start = end
    return tasks


def columns(rows: Sequence[TextBits]) -> Floats:
    """[documents, 2]: bits and bytes; their ratio of sums is the micro average, in which long documents weigh more."""
    return np.array([[row.bits, row.nbytes] for row in rows], np.float64).reshape(len(rows), 2)


def macro_columns(rows: Sequence[TextBits]) -> Floats:
    """[documents, 2]: bits per byte of each document, and 1; their ratio of sums is the macro average."""
    return np.array([[row.bits / row.nbytes, 1.0] for row in rows], np.float64).reshape(len(rows), 2)
