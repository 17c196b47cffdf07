"""An owner's lessons to a judge: texts with a change of the score each, which texts near them share.

A text is near one that shares most of its n-grams, or that asks the same in other words (model/matcher.py).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingle.model.matcher import odds_of
from ingle.safety.features import SIZE, Sparse

NEAR, NEAR_ODDS = 0.5, -1.0
"""Cosine of n-grams, and log odds of asking the same, from which a taught text acts on another one."""
_SURE_ODDS = 1.0
"""Log odds from which it acts in full."""
_MOST_MATCHED, _LEAST_SHARED = 3, 0.02
"""Taught texts of which it is asked whether they ask the same: those that share most n-grams, so many at the least."""


@dataclass(frozen=True)
class Nearby:
    """Texts with a change each."""

    places: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """Vectors of length 1, one after the other."""
    starts: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    changes: tuple[float, ...] = ()

    def with_one(self, text: Sparse, words: str, change: float) -> "Nearby":
        """Return these and one more."""
        places, values = text
        return Nearby(
            np.concatenate([self.places, places]), np.concatenate([self.values, values / _length(text)]), (*self.starts, len(self.places)),
            (*self.words, words), (*self.changes, change),
        )  # fmt: skip

    def change(self, text: Sparse, words: str = "") -> float:
        """Return the change of a text's score: a share of each correction, from 0 where it begins to be near to 1 for the same text."""
        if not self.changes:
            return 0.0
        dense = np.zeros(SIZE, np.float32)
        np.add.at(dense, text[0], text[1] / _length(text))
        cosines = np.add.reduceat(dense[self.places] * self.values, self.starts)
        shares = np.clip((cosines - NEAR) / (1 - NEAR), 0, 1)
        for number in np.argsort(-cosines)[:_MOST_MATCHED].tolist():
            if words and shares[number] < 1 and cosines[number] >= _LEAST_SHARED and self.words[number]:
                same = (odds_of(self.words[number], words) - NEAR_ODDS) / (_SURE_ODDS - NEAR_ODDS)
                shares[number] = max(shares[number], min(1.0, max(0.0, same)))
        change = float(shares @ np.array(self.changes))
        return change if math.isfinite(change) else 0.0


def _length(text: Sparse) -> float:
    """Return the length of a vector whose places may come twice."""
    _, where = np.unique(text[0], return_inverse=True)
    return max(float(np.sqrt((np.bincount(where, text[1]) ** 2).sum())), 1e-9)
