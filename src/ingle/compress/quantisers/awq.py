"""Columns with large inputs are scaled up before rounding, and what gives these inputs is scaled down (AWQ).

The scale of an input is its root mean square to some power between 0 and 1, the power with the least error of the outputs. It is taken
from the norm before q, k and v, and before gate and up; for down_proj, from the rows of up_proj. o_proj is left as it is: heads share the
values that its scales would go into. Then scales and minima are cut as `mse` does. Source: arXiv 2306.00978.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.quantiser import Quantiser, error_of
from ingle.compress.weight_formats import Quantised, WeightFormat, best_grid, plain_grid
from ingle.model.module import MLP, DecoderLayer

POWERS = tuple(i / 10 for i in range(11))
# Linears behind the norms before attention and before the MLP.
_AFTER_NORMS = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj"))


@torch.no_grad()
def _fold(layer: DecoderLayer, inputs: Mapping[str, Inputs], formats: Mapping[str, WeightFormat]) -> tuple[str, ...]:
    changed = []
    # down_proj first: its scales go into up_proj, whose own must be found for the rows as they will be.
    if {"mlp.down_proj", "mlp.up_proj"} <= set(formats):
        scales = _scales(layer, ["mlp.down_proj"], inputs, formats)
        assert isinstance(layer.mlp, MLP), "others are not quantised"
        layer.mlp.down_proj.weight.mul_(scales)
        layer.mlp.up_proj.weight.div_(scales[:, None])
        if layer.mlp.up_proj.bias is not None:
            layer.mlp.up_proj.bias.div_(scales)
            changed.append("mlp.up_proj.bias")
    for norm, linears in zip(layer.before, _AFTER_NORMS, strict=True):
        if norm and set(linears) <= set(formats):
            scales = _scales(layer, linears, inputs, formats)
            for name in linears:
                layer.get_parameter(f"{name}.weight").mul_(scales)
            layer.get_parameter(f"{norm}.weight").div_(scales)
            changed.append(f"{norm}.weight")
    return tuple(changed)


def _scales(layer: DecoderLayer, linears: Sequence[str], inputs: Mapping[str, Inputs], formats: Mapping[str, WeightFormat]) -> Tensor:
    """Factors of these linears' columns, which have the same input: float32 [K]."""
    hessian = inputs[linears[0]].hessian
    size = hessian.diagonal().sqrt().clamp(min=1e-6).float()
    best, least = torch.ones_like(size), float("inf")
    for power in POWERS:
        scales = size**power
        scales = scales / (scales.max() * scales.min()).sqrt()
        error = 0.0
        for name in linears:
            weight = layer.get_parameter(f"{name}.weight")
            grid = plain_grid(formats[name], weight * scales)
            error += error_of(weight, grid.values(grid.codes(weight * scales)) / scales, hessian)
        if error < least:
            best, least = scales, error
    return best


def _quantise(weight: Tensor, inputs: Inputs | None, format_: WeightFormat) -> Quantised:
    grid = best_grid(format_, weight, None if inputs is None else inputs.hessian.diagonal())
    return Quantised(grid, grid.codes(weight))


QUANTISER = Quantiser(_quantise, calibrated=True, fold=_fold)
