"""The contract of a quantiser. To add one, put a file into compress/quantisers: the file's name is its name, its first line its title.
The file holds `QUANTISER`, as below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.weight_formats import QuantisationGrid, Quantised, WeightFormat
from ingle.core import registry
from ingle.model.module import DecoderLayer

QUANTISERS = "ingle.compress.quantisers"
# Changes a layer's weights in place so that they round better, but not the layer's output. Gets the inputs of each linear, by name
# (`mlp.down_proj`), and the formats of the linears to be rounded. Returns the other parameters that it changed.
Fold = Callable[[DecoderLayer, Mapping[str, Inputs], Mapping[str, WeightFormat]], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Quantiser:
    """A way to put a matrix on a grid."""

    # float32 [N, K], K a multiple of 32, to codes; the inputs are None unless `calibrated`. Doesn't change its arguments.
    quantise: Callable[[Tensor, Inputs | None, WeightFormat], Quantised]
    calibrated: bool = False  # whether it needs the linear's inputs
    guided: bool = False  # whether tokens weigh as much as they matter to the model's predictions: takes one more reading forward and back
    fold: Fold | None = None  # change of each layer before quantising


def find_quantiser(name: str) -> Quantiser:
    """Return the quantiser of that name. Raises ConfigError with the known ones."""
    quantiser: Quantiser = registry.find(QUANTISERS, name, "method", "must be a known quantiser").QUANTISER
    return quantiser


# Codes for a matrix, by its inputs: least tr(ΔW H ΔWᵀ), not least ΔW².
# Shapes: W [N, K], H [K, K], in float32 but for factorisations.


_BLOCK = 128  # columns after which all later ones are brought up to date


def damped(inputs: Inputs, damping: float) -> Tensor:
    """H with `damping` times its mean diagonal added, float64. Inputs that are always 0 get a 1 there, so that it has an inverse."""
    hessian = inputs.hessian.clone()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal += damping * diagonal.mean()
    diagonal[dead] = 1
    return hessian


def gptq(weight: Tensor, hessian: Tensor, grid: QuantisationGrid) -> Quantised:
    """Round column by column, the most used first; later columns make up for each error.

    `hessian`: damped, float64. Source: arXiv 2210.17323, Algorithm 1; differs: the grid is fixed before, so that the order is free.
    """
    order = hessian.diagonal().argsort(descending=True, stable=True)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order])), upper=True).float()
    left = weight.T[order].contiguous()  # [K, N]: a column of W is a row here
    each = weight.shape[1] // grid.scale.shape[1]
    scale, minimum = (plane.T.repeat_interleave(each, 0)[order] for plane in (grid.scale, grid.minimum))
    divisor, codes = torch.where(scale != 0, scale, 1), torch.empty_like(left)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = torch.empty_like(left[start:end])
        for k in range(start, end):
            codes[k] = ((left[k] - minimum[k]) / divisor[k]).round().clamp(grid.format.low, grid.format.high)
            error = (left[k] - codes[k] * scale[k] - minimum[k]) / inverse[k, k]
            left[k:end] -= inverse[k, k:end, None] * error
            errors[k - start] = error
        left[end:] -= inverse[start:end, end:].T @ errors
    back = torch.empty_like(codes)
    back[order] = codes
    return Quantised(grid, back.T.contiguous())


def descend(weight: Tensor, hessian: Tensor, start: Quantised, sweeps: int) -> Quantised:
    """Improve codes, scales and minima in turn, group by group, each as good as it can be while all others stay.

    Never worse than `start`, but for rounding. `hessian`: damped.
    """
    grid, format_, h = start.grid, start.grid.format, hessian.float()
    scale, minimum, codes = grid.scale.clone(), grid.minimum.clone(), start.codes.clone()
    each = weight.shape[1] // scale.shape[1]
    pull = (weight - start.values) @ h  # [N, K]: half the negative gradient
    for _ in range(sweeps):
        for g in range(scale.shape[1]):
            span = slice(g * each, (g + 1) * each)
            own, local = h[span, span], pull[:, span].clone()
            before = codes[:, span] * scale[:, g, None] + minimum[:, g, None]
            q, s, m = codes[:, span].clone(), scale[:, g], minimum[:, g]
            now, divisor = before.clone(), torch.where(s != 0, s, 1)
            for k in range(each):
                target = now[:, k] + local[:, k] / own[k, k]
                q[:, k] = ((target - m) / divisor).round().clamp(format_.low, format_.high)
                change = q[:, k] * s + m - now[:, k]
                now[:, k] += change
                local -= change[:, None] * own[k]
            s, m = _refitted(grid, q, s, m, local, own)
            now = q * s[:, None] + m[:, None]
            pull -= (now - before) @ h[span]
            codes[:, span], scale[:, g], minimum[:, g] = q, s, m
    return Quantised(QuantisationGrid(format_, scale, minimum, grid.unit), codes)


def _refitted(grid: QuantisationGrid, q: Tensor, s: Tensor, m: Tensor, pull: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The best scale and minimum [N] of a group for its codes q [N, columns]; the old ones, where rounding makes the new ones no better."""
    hq = q @ own
    qq, slope_s = (hq * q).sum(1), (pull * q).sum(1)
    if not grid.format.has_minimum:
        step_s, step_m = slope_s / torch.where(qq > 0, qq, 1), torch.zeros_like(m)
    else:
        q1, ones, slope_m = hq.sum(1), own.sum(), pull.sum(1)
        determinant = qq * ones - q1 * q1
        sound = determinant > 1e-6 * qq * ones
        safe = torch.where(sound, determinant, 1)
        step_s = torch.where(sound, (ones * slope_s - q1 * slope_m) / safe, 0)
        step_m = torch.where(sound, (qq * slope_m - q1 * slope_s) / safe, 0)
    fitted = grid.nearest((s + step_s)[:, None], (m + step_m)[:, None])
    new_s, new_m = fitted.scale[:, 0], fitted.minimum[:, 0]
    change = q * (new_s - s)[:, None] + (new_m - m)[:, None]
    gain = 2 * (pull * change).sum(1) - ((change @ own) * change).sum(1)
    return torch.where(gain > 0, new_s, s), torch.where(gain > 0, new_m, m)


def error_of(weight: Tensor, values: Tensor, hessian: Tensor) -> float:
    """tr(ΔW H ΔWᵀ): the squared error of the outputs, per token."""
    change = (weight - values).double()
    return float(((change @ hessian) * change).sum())
