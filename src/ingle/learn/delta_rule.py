"""The gated delta rule of one head over one document (arXiv 2412.06464), with gradients, in float32 NumPy: what memories of hybrids and
Qwen 3.5's mixer are trained through.

    S ← α S (I − β φ φᵀ) + β v φᵀ,  y = S q

The whole document is one chunk, so there is no walk: U = (1 + tril(β Γ ⊙ K Kᵀ, −1))⁻¹ β V and Y = tril(Γ ⊙ Q Kᵀ) U, Γ_ij the product of
α from j + 1 to i. `model.module_parts.chunked` gives the same in PyTorch.

Shapes: L tokens, R queries a token, D width.
"""

from collections.abc import Callable

import numpy as np

from ingle.learn.pieces import Array

Slopes = tuple[Array, Array, Array, Array, Array]


def delta_rule(q: Array, k: Array, v: Array, decay: Array, write: Array) -> tuple[Array, Callable[[Array], Slopes]]:
    """Read from an empty state: q [L, R, D], k and v [L, D], log α and β [L] → y [L, R, D], and what gives the gradients of all five."""
    length, repeats, _ = q.shape
    seen = np.tri(length, dtype=np.bool_)
    logs = np.cumsum(decay)
    ratio = np.exp(np.where(seen, logs[:, None] - logs, np.float32(-np.inf)))
    pairs, scores = k @ k.T, (q.reshape(length * repeats, -1) @ k.T).reshape(length, repeats, length)
    system = np.tril(write[:, None] * ratio * pairs, -1) + np.eye(length, dtype=np.float32)
    update = np.linalg.solve(system, write[:, None] * v)
    weights = ratio[:, None] * scores

    def back(g: Array) -> Slopes:
        to_weights = np.einsum("ird,jd->irj", g, update, optimize=True)
        to_update = np.einsum("irj,ird->jd", weights, g, optimize=True)
        to_scores, to_ratio = to_weights * ratio[:, None], (to_weights * scores).sum(1)
        to_sides = np.linalg.solve(system.T, to_update)
        to_system = np.tril(-to_sides @ update.T, -1)
        to_write = (to_sides * v).sum(-1) + (to_system * ratio * pairs).sum(-1)
        to_ratio += to_system * write[:, None] * pairs
        to_pairs = to_system * write[:, None] * ratio
        to_k = np.einsum("irj,ird->jd", to_scores, q, optimize=True) + (to_pairs + to_pairs.T) @ k
        moved = to_ratio * ratio
        to_logs = moved.sum(1) - moved.sum(0)
        to_q = (to_scores.reshape(length * repeats, -1) @ k).reshape(q.shape)
        return to_q, to_k, write[:, None] * to_sides, np.cumsum(to_logs[::-1])[::-1], to_write

    return (weights.reshape(length * repeats, -1) @ update).reshape(q.shape), back
