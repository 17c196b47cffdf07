"""Mean: every home counts the same. It bears no poison but what the cut to the median length takes off."""

import numpy as np

from ingle.federated.open_round import Mean, Rows

LEAST, ROOTED = 3, False


def combine(rows: Rows, poisoned: int, root: int) -> Mean:
    return np.asarray(rows.sum(axis=0) / len(rows))
