"""Least squares with coefficients ≥ 0, for many small systems at once."""

from itertools import combinations

import numpy as np

from ingle.scaling.points import Floats

MOST_TERMS = 5
"""Active sets are enumerated: 31 of them for five terms."""
_RIDGE = 1e-13
"""Part of the diagonal that keeps equal columns solvable."""


def solve_positive(gram: Floats, moment: Floats) -> Floats:
    """Return the c ≥ 0 that minimises c·gram·c − 2·moment·c, for each of many systems: [..., p, p] and [..., p] → [..., p].

    A solution without a negative coefficient stands. Else all smaller sets of terms are solved for, and the best one without a negative
    coefficient is taken: by the conditions of Kuhn and Tucker the optimum is among them.
    """
    terms = moment.shape[-1]
    if terms > MOST_TERMS:
        raise ValueError(f"at most {MOST_TERMS} terms, not {terms}")
    flat_gram, flat_moment = gram.reshape(-1, terms, terms), moment.reshape(-1, terms)
    result = _solved(flat_gram, flat_moment)
    left = np.flatnonzero((result < 0).any(axis=-1))
    if left.size:
        result[left] = _best_set(flat_gram[left], flat_moment[left])
    return result.reshape(moment.shape)


def _best_set(gram: Floats, moment: Floats) -> Floats:
    best = np.zeros_like(moment)
    most = np.zeros(len(moment))
    terms = moment.shape[-1]
    for size in range(1, terms):
        for chosen in combinations(range(terms), size):
            index = np.array(chosen)
            some = _solved(gram[:, index[:, None], index], moment[:, index])
            explained = np.where((some >= 0).all(axis=-1), (some * moment[:, index]).sum(axis=-1), 0.0)
            better = explained > most
            most[better] = explained[better]
            best[better] = 0.0
            best[np.ix_(better, index)] = some[better]
    return best


def _solved(gram: Floats, moment: Floats) -> Floats:
    diagonal = np.sqrt(np.maximum(np.einsum("...ii->...i", gram), 1e-300))
    scaled = gram / (diagonal[..., :, None] * diagonal[..., None, :]) + _RIDGE * np.eye(gram.shape[-1])
    result: Floats = np.linalg.solve(scaled, (moment / diagonal)[..., None])[..., 0] / diagonal
    return result
