"""Ids beyond the vocabulary: each stands for a vector that came from a picture or a sound, where a token would stand for a word.

Such an id is derived from its content. So comparing ids (in the prefix cache, saved states, forks, replay) compares images and sounds, too,
and needs no vectors. The vectors themselves travel beside the ids, to their only reader: the backend.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json

Vectors = Mapping[int, npt.NDArray[np.float32]]
"""float32 [hidden] by id. Each stands in the place of a row of the model's embedding."""
NO_VECTORS: Vectors = MappingProxyType({})
Kind = Literal["image", "audio"]
KINDS: tuple[Kind, ...] = ("image", "audio")
_BITS = 29


def vector_id(vocab_size: int, kind: Kind, encoder: str, content: str, place: int) -> int:
    """Return the id of vector number `place` that `encoder` (a digest) makes of `content` (a digest), between vocab_size and 2³¹.

    29 bits of SHA-256, and one for the kind. Two contents share all of a picture's ids with a probability of 2⁻²⁹ for each of its vectors,
    multiplied.
    """
    number = int(digest_json([encoder, content, place])[:8], 16) % (1 << _BITS)
    return vocab_size + len(KINDS) * number + KINDS.index(kind)


def kind_of(id_: int, vocab_size: int) -> Kind | None:
    """Return whether an id stands for part of an image or of audio; None for a word."""
    return KINDS[(id_ - vocab_size) % len(KINDS)] if id_ >= vocab_size else None
