"""FLTrust (Cao et al. 2021): each update weighs as much as it points where the coordinator's own does, and is as long as that one.

The update of the coordinator's home is the root of trust: whoever agrees to this rule trusts that home's data.
Differs: the root is one of the updates, since it is a home's own data too; and it is never made longer than the median length.
"""

import math

import numpy as np

from ingle.federated.open_round import Mean, Rows
from ingle.federated.terms import exact_dot

LEAST, ROOTED = 3, True
PARTS = 1 << 16  # weighed rows are rounded to such parts: sums of whole numbers are the same in every order


def combine(rows: Rows, poisoned: int, root: int) -> Mean:
    """Return the mean of the rows, each as long as row `root`, weighed by its cosine with that row where it is above 0."""
    squares = [exact_dot(row, row) for row in rows]
    along = [exact_dot(row, rows[root]) for row in rows]
    total = np.zeros(rows.shape[1], np.int64)
    if not squares[root]:
        return total.astype(np.float64)
    trust = [max(0.0, dot / math.sqrt(squares[root] * square)) if square else 0.0 for dot, square in zip(along, squares, strict=True)]
    whole = math.fsum(trust)  # exact: in whatever order
    for row, square, weight in zip(rows, squares, trust, strict=True):
        if weight:
            total += np.rint(row * (PARTS * weight / whole * math.sqrt(squares[root] / square))).astype(np.int64)
    return np.asarray(total / PARTS)
