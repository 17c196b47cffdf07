"""Diminishing returns: where another unit gives less than a quarter of what the first one gave."""

from collections.abc import Sequence

import numpy as np

SHARE = 0.25


def stops_paying(spent: Sequence[float], losses: Sequence[float], share: float = SHARE) -> float | None:
    """Return the amount from which on another unit takes less than `share` of what the first one took off the loss.

    `spent` rises. None: the last unit still paid, or the first one did not.
    """
    amounts, values = np.array(spent, np.float64), np.array(losses, np.float64)
    if len(amounts) < 3:
        return None
    slopes = -np.diff(values) / np.diff(amounts)
    middles = np.sqrt(amounts[1:] * amounts[:-1])
    if slopes[0] <= 0:
        return None
    below = np.flatnonzero(slopes < share * slopes[0])
    if not below.size:
        return None
    at = int(below[0])
    if slopes[at] <= 0:
        return float(middles[at])
    x, y = np.log(middles[at - 1 : at + 1]), np.log(slopes[at - 1 : at + 1])
    wanted = np.log(share * slopes[0])
    return float(np.exp(x[0] + (x[1] - x[0]) * (y[0] - wanted) / (y[0] - y[1])))
