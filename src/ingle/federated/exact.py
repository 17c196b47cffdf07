"""Lengths of updates that every machine works out to the same last bit: in whole numbers, whatever the order of adding."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ingle.federated.rounding import Grid, Whole

FEWEST_BEFORE = 3  # a median of fewer says little
Steps = npt.NDArray[np.int64]  # numbers on a grid, 0 for zero; below 2 ** 32 in size


def exact_dot(left: Steps, right: Steps) -> int:
    """Return the exact sum of the products."""
    if left.size and int(np.abs(left).max()) * int(np.abs(right).max()) * left.size < 1 << 62:
        return int(left @ right)
    # Halves of 16 bits: no sum of their products leaves 64 bits.
    high, low, other_high, other_low = left >> 16, left & 0xFFFF, right >> 16, right & 0xFFFF
    return (int(high @ other_high) << 32) + ((int(high @ other_low) + int(low @ other_high)) << 16) + int(low @ other_low)


def shorter(square: Fraction | int, most: Fraction | int | None) -> float:
    """Return the factor that makes a row of this squared length no longer than √most, 1 at the most. None is no limit."""
    return 1.0 if most is None or square <= most else math.sqrt(Fraction(most) / Fraction(square))


def mean_square(total: Whole, homes: int, grid: Grid) -> Fraction:
    """Return the squared length of the mean of `homes` updates in a sum, in steps of the grid."""
    steps = total.astype(np.int64) - homes * grid.half
    return Fraction(exact_dot(steps, steps), homes * homes)


def usual_square(before: Sequence[Fraction]) -> Fraction | None:
    """Return the squared length that a gain may have: the median of those that were accepted before; None while they are too few."""
    return sorted(before)[(len(before) - 1) // 2] if len(before) >= FEWEST_BEFORE else None
