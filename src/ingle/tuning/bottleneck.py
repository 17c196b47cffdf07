"""Bottleneck adapters: a small network behind a linear, y + U relu(D y + d) + u (arXiv 1902.00751).

The linear's parameters keep their names; `adapter_down` (D [r, N], d [r]) and `adapter_up` (U [N, r], u [N]) stand beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingle.core.config import Count, check_bounds
from ingle.model.module import CausalLM
from ingle.train.low_rank import check_rank, plain_linear, replace_module, uniform
from ingle.tuning.linears import there
from ingle.tuning.tuning_method import Attached, attached

PARTS = ("adapter_down.weight", "adapter_down.bias", "adapter_up.weight", "adapter_up.bias")


@dataclass(frozen=True, slots=True)
class BottleneckSettings:
    """Settings of bottleneck adapters."""

    rank: Count = 64  # width of the bottleneck: an adapter has 2 × rank × hidden parameters, and a few more

    def __post_init__(self) -> None:
        check_bounds(self)


class BottleneckLinear(nn.Module):
    """y = W x + b, then y + U relu(D y + d) + u. Shapes: x [..., K], y [..., N]."""

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        outputs, device = linear.out_features, linear.weight.device
        self.adapter_down = nn.Linear(outputs, rank, device=device, dtype=torch.float32)
        self.adapter_up = nn.Linear(rank, outputs, device=device, dtype=torch.float32)
        with torch.no_grad():  # as PyTorch's own linears begin; with U zero the adapter does nothing yet
            self.adapter_down.weight.copy_(uniform((rank, outputs), outputs**-0.5, generator))
            for nothing in (self.adapter_down.bias, self.adapter_up.weight, self.adapter_up.bias):
                nothing.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        down, up = self.adapter_down, self.adapter_up
        y: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, down.weight, down.bias, up.weight, up.bias
        )
        return y.view(*x.shape[:-1], -1)

    def naive(self, x: Tensor) -> Tensor:
        """y by PyTorch's own differentiation: the naive reference that `forward` must match."""
        y = nn.functional.linear(x, self.weight, self.bias)
        z: Tensor = y + self.adapter_up(torch.relu(self.adapter_down(y)))
        return z


class _Adapted(torch.autograd.Function):
    """x [T, K] → [T, N], keeping y and the bottleneck's activations; W and b are never trained."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor
    ) -> Tensor:
        y = nn.functional.linear(x, weight, bias)
        h = nn.functional.linear(y, down, down_bias).relu_()
        ctx.save_for_backward(y, h, weight, down, up)
        return torch.addmm(y, h, up.t()).add_(up_bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y, h, weight, down, up), [g] = ctx.saved_tensors, grads
        to_h = (g @ up).mul_(h > 0)
        to_x = torch.addmm(g, to_h, down) @ weight if ctx.needs_input_grad[0] else None
        return to_x, None, None, to_h.t() @ y, to_h.sum(0), g.t() @ h, g.sum(0)


def attach_bottlenecks(module: CausalLM, layers: tuple[int, ...], places: tuple[str, ...], rank: int, seed: int) -> Attached:
    """Put an adapter behind each of these linears of the layers, e.g. `mlp.down_proj`. Raises ConfigError for a rank above hidden."""
    check_rank(rank, module.config.hidden_size, "the hidden states")
    intended = there(module.config, (f"model.layers.{layer}.{place}" for layer in layers for place in places), ", ".join(places))
    linears = {name: plain_linear(module, name) for name in intended}
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, nn.Parameter] = {}
    for name, linear in linears.items():
        new = BottleneckLinear(linear, rank, generator)
        replace_module(module, name, new)
        parameters |= {f"{name}.{part}": new.get_parameter(part) for part in PARTS}
    return attached(module, intended, parameters, lambda: values(parameters))


def values(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return float32 copies, by the same names."""
    return {name: parameter.detach().float().clone() for name, parameter in parameters.items()}
