"""Texts → rows of tokens. Texts stand on end, each after the token that ends the one before, and are cut into rows of one length.

So nothing is padded and nothing is lost, and a text goes on after another as it does in a long context. Rows of planted pairs are whole.
"""

from collections.abc import Callable, Iterable, Sequence

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
"""Held-out texts whose loss is computed while it is trained."""


def make_data(texts: Texts, tokenizer: Tokenizer, settings: TextSettings, progress: Callable[[int, int], None] = lambda *_: None) -> Data:
    """What is learnt from, and a few held-out texts to watch, one a row. Raises ConfigError where there is not a row of text."""
    rows = _cut(_stream(texts.train, tokenizer, settings.max_tokens, progress), settings.row_tokens)
    if not rows:
        raise ConfigError("data.sources", f"must hold a row of {settings.row_tokens} tokens at least", "less", "Lower data.row_tokens.")
    if settings.pairs:
        planter = Planter(tokenizer, texts.train, settings.row_tokens)
        count = max(1, round(len(rows) * settings.pairs / (1 - settings.pairs)))
        rows += [np.array(planter.row(f"{settings.seed} {i}").ids, np.int32) for i in range(count)]
    watched = [tokenizer.encode_prompt(text)[: settings.row_tokens] for text in texts.held_out[:WATCHED]]
    held_out = [np.array(ids, np.int32) for ids in watched if len(ids) > 1]
    corpus = _corpus([*rows, *held_out])
    return Data(corpus, range(len(rows)), range(len(rows), len(corpus)))


def _stream(texts: Sequence[str], tokenizer: Tokenizer, most: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """int32: all texts, one after the other, up to `most` tokens (0 = all)."""
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


def _cut(stream: np.ndarray, size: int) -> list[np.ndarray]:
    """Whole rows; what is left at the end, less than a row, is left out."""
    return list(stream[: len(stream) // size * size].reshape(-1, size))


def _corpus(rows: Iterable[np.ndarray]) -> Corpus:
    held = list(rows)
    ids = np.concatenate(held)
    bounds = np.cumsum([0, *map(len, held)], dtype=np.int64)
    answer = np.ones(len(ids), np.bool_)
    answer[bounds[:-1]] = False  # nothing predicts a row's first token
    digest = digest_json([digest_bytes(ids.tobytes()), bounds.tolist()])
    labels = np.full(len(held), -1, np.int8)
    return Corpus("answers", ids, answer, bounds, labels, tuple(map(str, range(len(held)))), digest)
