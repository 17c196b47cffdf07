"""Texts become rows of tokens: they stand on end, each after the token that ends the one before, and are cut into equal rows.

So nothing is padded or lost, and a text follows on another as it does in a long context. Rows of planted pairs are whole.

A model that is served reads the token that begins a text first, so every row begins with it. The token after it is learnt only where a
text does begin: a row that goes on in the middle of a text, or has pairs, says nothing about how texts begin.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.model.tokenizer import Tokenizer
from ingle.scaling.pairs import Planter
from ingle.scaling.settings import TextSettings
from ingle.scaling.sources import Texts
from ingle.train.corpus import Corpus
from ingle.train.packing import Data

WATCHED = 48
"""Held-out texts whose loss is computed during training."""


def make_data(texts: Texts, tokenizer: Tokenizer, settings: TextSettings, progress: Callable[[int, int], None] = lambda *_: None) -> Data:
    """Make rows to learn from, and a few held-out texts to watch, one a row. Raises ConfigError for less than a row of text."""
    assert tokenizer.bos_id is not None, "vocabularies from scratch begin their texts"
    stream = _stream(texts.train, tokenizer, settings.max_tokens, progress)
    rows, begun = _cut(stream, settings.row_tokens, tokenizer.bos_id)
    if not rows:
        raise ConfigError("data.sources", f"must hold at least a row of {settings.row_tokens} tokens", "less", "Lower data.row_tokens.")
    if settings.pairs:
        planter = Planter(tokenizer, texts.train, settings.row_tokens)
        count = max(1, round(len(rows) * settings.pairs / (1 - settings.pairs)))
        rows += [np.array(planter.row(f"{settings.seed} {i}").ids, np.int32) for i in range(count)]
    watched = [tokenizer.encode_prompt(text)[: settings.row_tokens] for text in texts.held_out[:WATCHED]]
    held_out = [np.array(ids, np.int32) for ids in watched if len(ids) > 1]
    begun += [False] * (len(rows) - len(begun)) + [True] * len(held_out)
    corpus = _corpus([*rows, *held_out], begun)
    return Data(corpus, range(len(rows)), range(len(rows), len(corpus)))


def _stream(texts: Sequence[str], tokenizer: Tokenizer, most: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """All texts, one after the other, up to `most` tokens (0 = all): int32."""
    parts, count = [], 0
    for i, text in enumerate(texts):
        ids = tokenizer.encode_prompt(text)
        parts.append(np.array(ids, np.int32))
        count += len(ids)
        if i % 1000 == 0:
            progress(i, len(texts))
        if most and count >= most:
            break
    progress(len(texts), len(texts))
    whole: np.ndarray = np.concatenate(parts)
    return whole[: most or None]


def _cut(stream: np.ndarray, size: int, begin: int) -> tuple[list[np.ndarray], list[bool]]:
    """Whole rows, and which of them a text begins. A rest at the end, less than a row, is left out."""
    rows, begun, start = list[np.ndarray](), list[bool](), 0
    while True:
        begins = start < len(stream) and bool(stream[start] == begin)
        piece = stream[start : start + size - (not begins)]
        row = piece if begins else np.concatenate(([begin], piece)).astype(stream.dtype)
        if len(row) < size:
            return rows, begun
        rows.append(row)
        begun.append(begins)
        start += len(piece)


def _corpus(rows: Sequence[np.ndarray], begun: Sequence[bool]) -> Corpus:
    """Make a corpus of rows; `begun`: which of them a text begins."""
    ids = np.concatenate(rows)
    bounds = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    answer = np.ones(len(ids), np.bool_)
    answer[bounds[:-1]] = False  # nothing predicts a row's first token
    answer[bounds[:-1][~np.array(begun)] + 1] = False
    digest = digest_json([digest_bytes(ids.tobytes()), digest_bytes(answer.tobytes()), bounds.tolist()])
    labels = np.full(len(rows), -1, np.int8)
    return Corpus("answers", ids, answer, bounds, labels, tuple(map(str, range(len(rows)))), digest)
