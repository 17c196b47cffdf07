"""An owner's lessons to a judge: texts with a change of the score each, which texts that share most of their n-grams share.

Other wordings are not reached: neither an encoder's vectors nor a network that compares questions tells them from near requests that mean
something else (LOG.md).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingle.safety.features import SIZE, Sparse

# Cosines of n-grams from which a taught text acts on another one, and from which it acts in full. What is stopped is the same request in
# another frame, too. What is let through must be the same text: a single word may turn it into harm.
STOPPED, LET_THROUGH = (0.6, 0.75), (0.5, 1.0)


@dataclass(frozen=True)
class Nearby:
    """Texts with a change each."""

    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))  # vectors of length 1, one after the other
    starts: tuple[int, ...] = ()
    changes: tuple[float, ...] = ()

    def with_one(self, text: Sparse, change: float) -> "Nearby":
        """Return these and one more."""
        places, values = text
        longer = np.concatenate([self.places, places]), np.concatenate([self.values, values / _length(text)])
        return Nearby(*longer, (*self.starts, len(self.places)), (*self.changes, change))

    def change(self, text: Sparse) -> float:
        """Return the change of a text's score: a share of each correction, from 0 where it begins to be near to 1."""
        if not self.changes:
            return 0.0
        dense = np.zeros(SIZE, np.float32)
        np.add.at(dense, text[0], text[1] / _length(text))
        cosines = np.add.reduceat(dense[self.places] * self.values, self.starts)
        changes = np.array(self.changes)
        near, full = np.where(changes[:, None] > 0, STOPPED, LET_THROUGH).T
        change = float(np.clip((cosines - near) / (full - near), 0, 1) @ changes)
        return change if math.isfinite(change) else 0.0


def _length(text: Sparse) -> float:
    """Return the length of a vector whose places may come twice."""
    _, where = np.unique(text[0], return_inverse=True)
    return max(float(np.sqrt((np.bincount(where, text[1]) ** 2).sum())), 1e-9)
