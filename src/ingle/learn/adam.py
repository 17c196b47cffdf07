"""Adam for the additions of a lesson (arXiv 1412.6980), with the length of all gradients together bounded."""

from collections.abc import Sequence

import numpy as np

from ingle.learn.pieces import Array, LowRank

CLIP_NORM = 1.0
_BETA_1, _BETA_2, _EPS = 0.9, 0.99, 1e-8


class Adam:
    """Moves some additions, and keeps the means that it goes by."""

    def __init__(self, additions: Sequence[LowRank], rate: float) -> None:
        """`rate`: learning rate of the first step."""
        self._additions, self._rate, self._steps = tuple(additions), rate, 0
        self._means: list[tuple[Array, Array]] = [(np.zeros_like(v), np.zeros_like(v)) for one in additions for v in (one.a, one.b)]

    def step(self, factor: float) -> None:
        """Move all once, at `factor` of the rate, and set their gradients to zero."""
        self._steps += 1
        pairs = [pair for one in self._additions for pair in ((one.a, one.to_a), (one.b, one.to_b))]
        length = float(np.sqrt(sum(float(np.vdot(slope, slope)) for _, slope in pairs)))
        shrink = np.float32(min(1.0, CLIP_NORM / max(length, 1e-12)))
        near, far = 1 - _BETA_1**self._steps, 1 - _BETA_2**self._steps
        for (value, slope), (mean, square) in zip(pairs, self._means, strict=True):
            slope *= shrink
            mean += np.float32(1 - _BETA_1) * (slope - mean)
            square += np.float32(1 - _BETA_2) * (slope * slope - square)
            value -= np.float32(self._rate * factor / near) * mean / (np.sqrt(square / np.float32(far)) + np.float32(_EPS))
            slope.fill(0)
