"""Losses on the vocabulary with their gradients, in chunks of rows: the logits of all rows are never whole in memory.

Shapes: A rows, h hidden, V vocabulary.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ingle.learn.matrix import Array, FrozenMatrix

CHUNK = 64  # rows: 64 × 49,152 float32 are 13 MB
Integers = npt.NDArray[np.int64]


def cross_entropy(states: Array, head: FrozenMatrix, targets: Integers) -> tuple[Array, Array]:
    """Return log p(target) of each row in nats, [A], and the gradient of their negative sum at the states, [A, h]."""

    def loss(rows: slice, logits: Array) -> tuple[Array, Array]:
        chosen, place = targets[rows], np.arange(len(logits))
        logs = log_softmax(logits)
        words = logs[place, chosen].copy()
        slope = np.exp(logs, out=logs)
        slope[place, chosen] -= 1
        return words, slope

    return _in_chunks(states, head, loss)


def divergence(states: Array, head: FrozenMatrix, before: Array) -> tuple[Array, Array]:
    """Return KL(before ‖ now) of each row in nats, [A], and the gradient of their sum at the states. `before`: the states that give the
    other distribution by the same head, [A, h]."""

    def loss(rows: slice, logits: Array) -> tuple[Array, Array]:
        moved, theirs = np.empty(len(logits), np.float32), log_softmax(head.times(before[rows]))
        for number, (mine, other) in enumerate(zip(log_softmax(logits), theirs, strict=True)):
            chances = np.exp(other)
            moved[number] = (chances * (other - mine)).sum()
            np.exp(mine, out=mine)
            mine -= chances
        return moved, logits

    return _in_chunks(states, head, loss)


def log_softmax(logits: Array) -> Array:
    """Turn logits [A, V] into log-probabilities, in place; row by row, so that what is in between is small."""
    for row in logits:
        row -= row.max()
        row -= np.log(np.exp(row).sum())
    return logits


def _in_chunks(states: Array, head: FrozenMatrix, loss: Callable[[slice, Array], tuple[Array, Array]]) -> tuple[Array, Array]:
    values, slopes = np.empty(len(states), np.float32), np.empty_like(states)
    for start in range(0, len(states), CHUNK):
        rows = slice(start, start + CHUNK)
        values[rows], slope = loss(rows, head.times(states[rows]))
        slopes[rows] = head.back(slope)
    return values, slopes
