"""Median, number by number (Yin et al. 2018): half of the homes must be poisoned to move one."""

import numpy as np

from ingle.federated.open_round import Mean, Rows

LEAST, ROOTED = 3, False


def combine(rows: Rows, poisoned: int, root: int) -> Mean:
    """Return the median of each column; of an even number of rows the mean of the two in the middle."""
    low, high = (len(rows) - 1) // 2, len(rows) // 2
    middle = np.partition(rows, (low, high), axis=0)
    return np.asarray((middle[low] + middle[high]) / 2)
