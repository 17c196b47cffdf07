"""The palette: 512 words that stand for the codes of emblems, so that a picture is a text of 64 words.

A word is one token of the model's vocabulary, a space and small letters, so texts and tokens turn into each other without loss. The words'
embedding rows lie far apart (farthest point first), and codes that look alike get words whose rows are near each other.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError
from ingle.media.painter import CODES
from ingle.model.tokenizer import Tokenizer

_WORD = re.compile(rb" [a-z]{3,}")
_COMMON = 20_000
"""Only so many of the vocabulary's first words are taken: rare ones have rows that hardly any training has touched."""
_AXES = 8
"""Principal axes along which rows and codes are compared."""


def choose_palette(tokenizer: Tokenizer, rows: npt.NDArray[np.float32], codebook: npt.NDArray[np.float32]) -> list[int]:
    """Return the token of each code. `rows`: the embedding [vocabulary, hidden]; `codebook`: [512, width].

    Raises ConfigError for a vocabulary with too few words of one token.
    """
    words = words_of(tokenizer, min(_COMMON, len(rows)))
    if len(words) < CODES:
        cure = "Use a model with a larger vocabulary, like smollm2."
        raise ConfigError("model", f"must have {CODES} words of one token each", f"{len(words)}", cure)
    chosen = [words[i] for i in farthest(rows[words], CODES)]
    return [chosen[i] for i in matched(codebook, rows[chosen])]


def words_of(tokenizer: Tokenizer, most: int) -> list[int]:
    """Return the tokens below `most` that are a space and small letters, and that their own text turns into again."""
    found = [(token, tokenizer.token_bytes(token)) for token in range(most)]
    return [token for token, text in found if _WORD.fullmatch(text) and tokenizer.encode(text.decode()) == [token]]


def farthest(rows: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the numbers of so many rows, far apart by angle: each is the farthest from all before it, the first from their mean."""
    unit = _unit(rows)
    near = unit @ _unit(unit.mean(0, keepdims=True))[0]
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(near.argmin()))
        near = np.maximum(near, unit @ unit[chosen[-1]]) if len(chosen) > 1 else unit @ unit[chosen[-1]]
    return chosen


def matched(codes: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> list[int]:
    """Return for each code the number of its row, each row once: the nearest pairs of both along their principal axes come first."""
    apart = np.square(_axes(codes)[:, None] - _axes(rows)[None]).sum(-1)
    place = np.full(len(codes), -1)
    taken = np.zeros(len(rows), bool)
    for pair in np.argsort(apart, axis=None, kind="stable"):
        code, row = divmod(int(pair), len(rows))
        if place[code] < 0 and not taken[row]:
            place[code], taken[row] = row, True
    return [int(row) for row in place]


def codes_of(ids: Sequence[int], palette: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the codes that tokens stand for. Raises ConfigError for a token that is none of the palette's."""
    place = {token: code for code, token in enumerate(palette)}
    if strange := [token for token in ids if token not in place]:
        raise ConfigError("picture", "must be words of the palette", strange[0])
    return np.array([place[token] for token in ids], np.int64)


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _axes(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return points along their first principal axes, each axis scaled to one."""
    centred = points.astype(np.float64) - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:_AXES]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # a sign of an SVD is nobody's choice
    along = centred @ axes.T
    scaled: npt.NDArray[np.float64] = along / np.where(along.std(0) > 0, along.std(0), 1)
    return scaled
