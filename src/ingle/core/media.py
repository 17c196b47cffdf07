"""Pictures and sounds, decoded, and what a model reads in a picture's place."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture."""

    pixels: npt.NDArray[np.uint8]
    """RGB, uint8 [height, width, 3]."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over its size and its pixels: two files with the same pixels are the same picture."""
        return digest_bytes(repr(self.pixels.shape).encode() + np.ascontiguousarray(self.pixels).tobytes())


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded recording of one channel."""

    samples: npt.NDArray[np.float32]
    """float32 [n], −1 to 1."""
    rate: int
    """Samples per second."""

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


SightPiece = str | ControlName | npt.NDArray[np.float32]
"""Words, which are encoded like anything that people type; a control token; or vectors float32 [n, hidden] in the place of n tokens."""


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
