"""Weights go column by column, and the columns after make up for each (SparseGPT, arXiv 2301.00774).

With U, upper, from H⁻¹ = Uᵀ U: what column j loses, scaled by 1 / U_jj, is taken from the columns after it by U_j,j…; weights go where
w² / U_jj² is smallest, in blocks of 128 columns over all rows (or in each row, of every four neighbours). H: see `Inputs`.
"""

import torch
from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.pruning import Cut, largest

BLOCK = 128
DAMPING = 0.01  # share of the mean of H's diagonal that is added to it


@torch.no_grad()
def sparse(weight: Tensor, inputs: Inputs, share: float, of: int) -> Cut:
    """See `ingle.compress.pruning.Sparse`."""
    columns, w = weight.shape[1], weight.float().clone()
    upper = inverse_root(inputs.hessian, w).float()
    stays = torch.ones_like(w, dtype=torch.bool)
    if of:
        largest(w, share, of)  # raises if the width isn't a multiple
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        part, errors, factors = w[:, start:end], torch.zeros(len(w), end - start), upper[start:end, start:end]
        keep = stays[:, start:end]
        if not of:
            scores = (part / factors.diagonal()).square()
            gone = scores.flatten().argsort(stable=True)[: round(scores.numel() * share)]
            flat = torch.ones(scores.numel(), dtype=torch.bool)
            flat[gone] = False
            keep.copy_(flat.view_as(keep))
        for j in range(end - start):
            if of and j % of == 0:
                scores = (part[:, j : j + of] / factors.diagonal()[j : j + of]).square()
                keep[:, j : j + of] = largest(scores, share, 0)
            lost = torch.where(keep[:, j], 0.0, part[:, j]) / factors[j, j]
            part[:, j:] -= lost[:, None] * factors[j, j:]
            part[:, j] = torch.where(keep[:, j], part[:, j], 0.0)
            errors[:, j] = lost
        w[:, end:] -= errors @ upper[start:end, end:]
    return Cut(stays, w * stays)


def inverse_root(hessian: Tensor, weight: Tensor | None = None) -> Tensor:
    """float64 upper U with H⁻¹ = Uᵀ U, H damped. Inputs that are always 0 get 1 in H, and 0 in `weight`, in place."""
    h = hessian.double().clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1
    if weight is not None:
        weight[:, dead] = 0
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper


LOOKS = True
CUTS = {"none": sparse, "2:4": sparse}
