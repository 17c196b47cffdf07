"""Pictures and sounds as arrays: what a decoder gives, and what an encoder takes."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A recording with one channel."""

    samples: npt.NDArray[np.float32]
    """float32 [n], −1 to 1."""
    rate: int
    """Samples per second."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate

    @property
    def digest(self) -> str:
        """SHA-256 of rate and samples."""
        return hashlib.sha256(b"%d:" % self.rate + np.ascontiguousarray(self.samples, np.float32).tobytes()).hexdigest()
