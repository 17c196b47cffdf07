"""Pictures and sounds, decoded, and what a model reads in a picture's place."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes, digest_json


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture."""

    pixels: npt.NDArray[np.uint8]  # RGB, uint8 [height, width, 3]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over its size and its pixels: two files with the same pixels are the same picture."""
        return digest_bytes(repr(self.pixels.shape).encode() + np.ascontiguousarray(self.pixels).tobytes())


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded recording of one channel."""

    samples: npt.NDArray[np.float32]  # float32 [n], −1 to 1
    rate: int  # samples per second

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    @cached_property
    def digest(self) -> str:
        """SHA-256 over its rate and its samples."""
        return digest_bytes(str(self.rate).encode() + b"\0" + np.ascontiguousarray(self.samples, np.float32).tobytes())


@dataclass(frozen=True, slots=True)
class ControlName:
    """A control token of the model's vocabulary, by its name."""

    name: str


# Words, which are encoded like anything that people type; a control token; or vectors float32 [n, hidden] in the place of n tokens.
SightPiece = str | ControlName | npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PictureLook:
    """A picture as far as it is remembered: enough to know it, and its like, again."""

    content: str  # digest of the picture
    sight: str  # digest of the sight that made the fingerprint
    fingerprint: npt.NDArray[np.float32]  # float32 [n], of length 1; see `Sight.fingerprint`

    def text(self) -> str:
        """Return it as text, with the fingerprint in half precision."""
        kept = base64.b64encode(self.fingerprint.astype(np.float16).tobytes()).decode()
        return json.dumps([self.content, self.sight, kept])

    @staticmethod
    def of(text: str) -> "PictureLook":
        """Return the look that was written as text. Raises ValueError for anything else."""
        try:
            content, sight, kept = json.loads(text)
            fingerprint = np.frombuffer(base64.b64decode(kept, validate=True), np.float16).astype(np.float32)
            return PictureLook(str(content), str(sight), fingerprint)
        except (TypeError, ValueError) as error:
            raise ValueError("this is no look of a picture") from error

    def is_like(self, other: "PictureLook", likeness: float) -> bool:
        """Return whether both show the same picture, or such as the sight can hardly tell apart (see `Sight.likeness`)."""
        if self.content == other.content:
            return True
        same_kind = self.sight == other.sight and self.fingerprint.shape == other.fingerprint.shape
        return same_kind and float(self.fingerprint @ other.fingerprint) >= likeness


class Sight(Protocol):
    """An encoder of pictures for one model: what the model reads in the place of a picture. Opened when the first picture comes."""

    @property
    def digest(self) -> str:
        """Digest of all that its pieces depend on beside the picture."""
        ...

    @property
    def marker(self) -> str:
        """Name of the control token that the model's chat template writes for a picture; "" = the template knows nothing of pictures."""
        ...

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        """Return the pieces that stand for a picture; the same for the same pixels, to the bit. Raises ConfigError or HomeError for
        parts that are not there, with the command that brings them."""
        ...

    @property
    def likeness(self) -> float:
        """The dot product of two fingerprints from which on their pictures count as alike: measured on pictures of the same thing by
        different hands, beside pictures of different things."""
        ...

    def fingerprint(self, picture: Picture, pieces: Sequence[SightPiece]) -> npt.NDArray[np.float32]:
        """Return features float32 [n] of length 1 by which pictures of alike things are found. `pieces`: of `see`. Raises as `see` does."""
        ...


# Ids beyond the vocabulary: each stands for a vector that came from a picture or a sound, where a token would stand for a word.
# Such an id is derived from its content. So comparing ids (in the prefix cache, saved states, forks, replay) compares images and sounds,
# too, and needs no vectors. The vectors themselves travel beside the ids, to their only reader: the backend.


# float32 [hidden] by id. Each stands in the place of a row of the model's embedding.
Vectors = Mapping[int, npt.NDArray[np.float32]]
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
