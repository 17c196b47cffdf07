"""Training of the blocks' scales and minima, end to end, while the codes stay (EfficientQAT, arXiv 2407.11062, section 3.3).

Rounding layer by layer sees each linear's own outputs; this sees the whole model's. Learnt is a share: scale · (1 + a) and minimum +
scale · b, so that one learning rate fits all blocks. Where scales and minima are whole numbers of a unit, the model computes with the
nearest ones, and gradients go straight through. Differs from the source: minima are trained too, and the loss follows the original
model's predictions, not the text's next token.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.compress.weight_formats import QuantisationGrid, Quantised, WeightFormat, grouped, read_blocks
from ingle.model.module import CausalLM

Array = npt.NDArray[Any]
_A, _B = "scale_change", "minimum_change"


class Gridded(nn.Module):
    """y = W x + bias, W = scale · (1 + a) · codes + minimum + scale · b. Shapes: codes [N, K]; scale, minimum, a, b [N, groups]."""

    def __init__(self, linear: nn.Linear, quantised: Quantised) -> None:
        super().__init__()
        self.bias, self.grid, self.codes = linear.bias, quantised.grid, quantised.codes.to(torch.int8)
        self.scale_change = nn.Parameter(torch.zeros_like(self.grid.scale))
        self.minimum_change = nn.Parameter(torch.zeros_like(self.grid.scale)) if self.grid.format.has_minimum else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        weight: Tensor = _Values.apply(  # type: ignore[no-untyped-call]
            self.scale_change, self.minimum_change, self.codes, self.grid, x.dtype
        )
        return nn.functional.linear(x, weight, self.bias)

    @torch.no_grad()
    def settled(self) -> Quantised:
        """Return the matrix with the learnt scales and minima, in numbers that blocks can hold."""
        return Quantised(self.grid.nearest(*_planes(self.scale_change, self.minimum_change, self.grid)), self.codes.float())


class _Values(torch.autograd.Function):
    """The weights, computed in float32; of their gradients only the sums over each block are returned."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, codes: Tensor, grid: QuantisationGrid, dtype: torch.dtype) -> Tensor:
        ctx.codes, ctx.scale, ctx.dtypes = codes, grid.scale, (a.dtype, None if b is None else b.dtype)
        scale, minimum = _planes(a, b, grid)
        if grid.unit is not None:
            new = grid.nearest(scale, minimum)
            scale, minimum = new.scale, new.minimum
        return torch.addcmul(minimum[..., None], grouped(codes, scale).float(), scale[..., None]).flatten(1).to(dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        groups = grouped(slope.float(), ctx.scale)
        a = (ctx.scale * (groups * grouped(ctx.codes, ctx.scale)).sum(2)).to(ctx.dtypes[0])
        b = None if ctx.dtypes[1] is None else (ctx.scale * groups.sum(2)).to(ctx.dtypes[1])
        return a, b, None, None, None


def _planes(a: Tensor, b: Tensor | None, grid: QuantisationGrid) -> tuple[Tensor, Tensor]:
    return grid.scale * (1 + a.float()), grid.minimum if b is None else grid.minimum + grid.scale * b.float()


def attach_grids(module: CausalLM, blocks: Mapping[str, Array], formats: Mapping[str, WeightFormat]) -> dict[str, nn.Parameter]:
    """Put a `Gridded` in the place of each linear whose parameter is in `formats`. Returns the trainable parameters by name."""
    trainable = dict[str, nn.Parameter]()
    for name, format_ in formats.items():
        linear = name.removesuffix(".weight")
        owner, _, last = linear.rpartition(".")
        old = module.get_submodule(linear)
        assert isinstance(old, nn.Linear)
        new = Gridded(old, read_blocks(format_, blocks[name]))
        setattr(module.get_submodule(owner), last, new)
        trainable |= {f"{linear}.{key}": parameter for key, parameter in new.named_parameters() if key in (_A, _B)}
    return trainable


def settled_blocks(module: CausalLM, formats: Mapping[str, WeightFormat]) -> dict[str, Array]:
    """Return the blocks of all these parameters, as `Quantised.blocks` gives them."""
    blocks = dict[str, Array]()
    for name in formats:
        one = module.get_submodule(name.removesuffix(".weight"))
        assert isinstance(one, Gridded)
        blocks[name] = one.settled().blocks()
    return blocks
