"""Fits linear judges: logistic regression on sparse vectors, on the whole data, in NumPy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ingle.safety.features import SIZE, Sparse, stacked

Floats = npt.NDArray[np.float64]


def fit(
    texts: Sequence[Sparse], labels: Sequence[float], weights: Sequence[float] | None = None, strength: float = 30.0, steps: int = 200
) -> tuple[npt.NDArray[np.float32], float]:
    """Return the weights [SIZE] and the bias that give these labels (0 to 1). `weights`: how much each text counts.

    strength: how far the data may move the weights; the inverse of the penalty on their squares. Solved by Nesterov's accelerated gradient
    with the step that a vector of length 1 allows.
    """
    places, values, starts = stacked(texts)
    lengths = np.diff([*starts, len(places)])
    target, each = np.asarray(labels, np.float64), np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    penalty, each = 1 / (strength * each.sum()), each / each.sum()
    w, before, bias, bias_before = np.zeros(SIZE), np.zeros(SIZE), 0.0, 0.0
    step = 1 / (0.5 + penalty)  # a logistic loss curves by a quarter, and the bias adds as much as a vector of length 1
    for number in range(steps):
        pull = number / (number + 3)
        ahead, bias_ahead = w + pull * (w - before), bias + pull * (bias - bias_before)
        now = np.add.reduceat(ahead[places] * values, starts) + bias_ahead
        wrong = (1 / (1 + np.exp(-np.clip(now, -30, 30))) - target) * each
        before, bias_before = w, bias
        w = ahead - step * (np.bincount(places, np.repeat(wrong, lengths) * values, SIZE) + penalty * ahead)
        bias = bias_ahead - step * float(wrong.sum())
    return w.astype(np.float32), float(bias)


def logits(texts: Sequence[Sparse], w: npt.NDArray[np.float32], bias: float) -> Floats:
    """Return the log-odds of many texts."""
    places, values, starts = stacked(texts)
    result: Floats = np.add.reduceat(w[places].astype(np.float64) * values, starts) + bias
    return result
