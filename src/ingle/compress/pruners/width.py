"""Channels or groups of heads go one by one, those first that the others can best make up for (ZipLM, arXiv 2302.04089).

With H⁻¹ of what is left, a unit S costs tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ) when it goes and all others are fitted anew; H⁻¹ is then updated by the
elimination of S. Differs: units of one column are chosen in rounds of 1/32 of them, and in the end the matrix is fitted once by least
squares to what the *original* gave, W (H + D)_·k (H_kk)⁻¹, where D is the drift that earlier layers have caused (as arXiv 2504.02692).
"""

import torch
from torch import Tensor

from ingle.compress.pruning import Cut, PrunedBlock, columns_of

DAMPING = 0.01
ROUNDS = 32
ENOUGH = 4  # tokens for each input from which on the matrix is fitted: with 2.7 the fit lost on other texts, with 10.7 it won a fifth


@torch.no_grad()
def units(block: PrunedBlock, count: int) -> Cut:
    """See `ingle.compress.pruning.Units`."""
    size, whole = block.size, block.weight.double()
    h = block.inputs.hessian.double().clone()
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    left = torch.arange(whole.shape[1] // size)
    inverse, w = torch.cholesky_inverse(torch.linalg.cholesky(h)), whole.clone()
    while len(left) > count:
        costs = _costs(inverse, w, size)
        some = 1 if size > 1 else min(len(left) - count, max(1, len(left) // ROUNDS))
        gone = costs.argsort(stable=True)[:some]
        rest = torch.ones(len(left), dtype=torch.bool)
        rest[gone] = False
        s, k = columns_of(gone, size), columns_of(rest.nonzero().flatten(), size)
        factor = torch.linalg.solve(inverse[s][:, s], inverse[s][:, k])
        w = w[:, k] - w[:, s] @ factor
        inverse = inverse[k][:, k] - inverse[k][:, s] @ factor
        left = left[rest]
    if block.inputs.tokens < ENOUGH * whole.shape[1]:
        return Cut(left)
    k = columns_of(left, size)
    target = block.inputs.hessian.double() if block.inputs.drift is None else block.inputs.hessian.double() + block.inputs.drift.double()
    fitted = torch.linalg.solve(h[k][:, k], (whole @ target[:, k] + _pulled(whole[:, k], h, block)).T).T
    return Cut(left, fitted.float())


def _pulled(weight: Tensor, damped: Tensor, block: PrunedBlock) -> Tensor:
    """Term that damping adds to the right side, so that it pulls towards the old weights, not towards 0."""
    return weight * float(damped[0, 0] - block.inputs.hessian[0, 0])


def _costs(inverse: Tensor, w: Tensor, size: int) -> Tensor:
    """Rise of the squared error when each unit goes: float64 [units]."""
    if size == 1:
        return w.square().sum(0) / inverse.diagonal()
    units_left = w.shape[1] // size
    costs = []
    for unit in range(units_left):
        span = slice(unit * size, unit * size + size)
        costs.append((torch.linalg.solve(inverse[span, span], w[:, span].T) * w[:, span].T).sum())
    return torch.stack(costs)


LOOKS = True
CUTS = {"channels": units, "heads": units}
