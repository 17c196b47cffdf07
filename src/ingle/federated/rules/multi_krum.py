"""Multi-Krum (Blanchard et al. 2017): the mean of the updates that have the nearest neighbours; who stands apart is left out whole.

Differs: updates whose scores are the same are kept or left out together, so that the order of the homes changes nothing.
"""

import numpy as np

from ingle.federated.open_round import Mean, Rows
from ingle.federated.terms import exact_dot

LEAST, ROOTED = 5, False


def combine(rows: Rows, poisoned: int, root: int) -> Mean:
    """Return the mean of the homes − poisoned rows whose nearest homes − poisoned − 2 others are nearest."""
    homes = len(rows)
    dots = [[exact_dot(rows[i], rows[j]) if j <= i else 0 for j in range(homes)] for i in range(homes)]
    apart = [[dots[i][i] + dots[j][j] - 2 * dots[max(i, j)][min(i, j)] for j in range(homes) if j != i] for i in range(homes)]
    scores = [sum(sorted(one)[: homes - poisoned - 2]) for one in apart]
    last = sorted(scores)[homes - poisoned - 1]
    kept = rows[[score <= last for score in scores]]
    return np.asarray(kept.sum(axis=0) / len(kept))
