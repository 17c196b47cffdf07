"""ContextCite (arXiv 2409.00729): a sparse linear model of the answer's log-odds over random halves of the sentences."""

import numpy as np
import numpy.typing as npt

from ingle.explain.cause import Nats
from ingle.explain.falls import Falls, Left

ABLATIONS = 32
_ALPHA = 0.01
_KEPT = 0.5
_ROUNDS = 1000


def propose(falls: Falls, answer: str, seed: int) -> Nats:
    """See explain/falls.py: the sentence's weight in the model."""
    return fitted(falls, ABLATIONS, seed)


def fitted(falls: Falls, ablations: int, seed: int) -> Nats:
    kept = np.random.default_rng(seed).random((ablations, len(falls.causes))) < _KEPT
    sets = [Left(i for i, stays in zip(falls.causes, row, strict=True) if not stays) for row in kept]
    # The answer's log-probability is its own, less the fall; its own only shifts the intercept where the odds are long.
    lost = np.array(falls.of(sets))
    base = falls.base_nats
    tokens = max(1, int(falls.inside.sum()))
    odds = _log_odds(base - lost) / tokens
    return lasso(kept.astype(np.float64), odds, _ALPHA) * tokens


def _log_odds(log_probability: Nats) -> Nats:
    clipped = np.minimum(log_probability, -1e-9)
    return np.asarray(clipped - np.log1p(-np.exp(clipped)), np.float64)


def lasso(x: npt.NDArray[np.float64], y: Nats, alpha: float) -> Nats:
    """Return the weights w that minimise |y − Xw − b|² / (2n) + α |w|₁, by coordinate descent on standardised columns."""
    spread = x.std(axis=0)
    used = spread > 0
    scaled = np.where(used, (x - x.mean(axis=0)) / np.where(used, spread, 1.0), 0.0)
    left, weights = y - y.mean(), np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        before = weights.copy()
        for j in np.flatnonzero(used):
            rho = scaled[:, j] @ left / len(y) + weights[j]
            new = np.sign(rho) * max(abs(rho) - alpha, 0.0)
            left += scaled[:, j] * (weights[j] - new)
            weights[j] = new
        if np.abs(weights - before).max(initial=0.0) < 1e-7:
            break
    return np.asarray(np.where(used, weights / np.where(used, spread, 1.0), 0.0), np.float64)
