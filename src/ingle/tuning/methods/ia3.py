"""IA³: keys, values and the MLP's inner activations multiplied by learnt vectors (arXiv 2205.05638)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.train.low_rank import plain_linear, replace_module
from ingle.tuning.linears import chosen_linears
from ingle.tuning.tuning_method import Attached, attached

KIND = "ia3"
RATE = 1e-2


@dataclass(frozen=True, slots=True)
class Settings:
    outputs: str = "k_proj,v_proj"  # linears whose outputs are multiplied: all, attention, mlp, or names; empty = none
    inputs: str = "down_proj"  # linears whose inputs are multiplied


class ScaledLinear(nn.Module):
    """(1 + c) · (W x + b), or W ((1 + c) · x) + b.

    Trained is c, the vector's distance from 1: near 1, bfloat16 has steps of 0.8 %, near 0 far finer ones.
    """

    def __init__(self, linear: nn.Linear, on_inputs: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.on_inputs = linear.weight, linear.bias, on_inputs
        size = linear.in_features if on_inputs else linear.out_features
        self.ia3_change = nn.Parameter(torch.zeros(size, device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        if self.on_inputs:
            return nn.functional.linear(self._scaled(x), self.weight, self.bias)
        return self._scaled(nn.functional.linear(x, self.weight, self.bias))

    def naive(self, x: Tensor) -> Tensor:
        """y by PyTorch's own differentiation: the naive reference that `forward` must match."""
        factors = 1 + self.ia3_change
        if self.on_inputs:
            return nn.functional.linear(x * factors, self.weight, self.bias)
        return nn.functional.linear(x, self.weight, self.bias) * factors

    def _scaled(self, x: Tensor) -> Tensor:
        y: Tensor = _Scaled.apply(x, self.ia3_change)  # type: ignore[no-untyped-call]
        return y


class _Scaled(torch.autograd.Function):
    """x [..., n] + x · c in one walk through memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Tensor) -> Tensor:
        ctx.save_for_backward(x, change)
        return torch.addcmul(x, x, change)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:
        (x, change), [g] = ctx.saved_tensors, grads
        to_x = torch.addcmul(g, g, change) if ctx.needs_input_grad[0] else None
        return to_x, (g * x).flatten(0, -2).sum(0)


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`; nothing is random. Raises ConfigError for a linear on both sides, or none at all."""
    sides = [chosen_linears(module.config, layers, text) if text else () for text in (settings.outputs, settings.inputs)]
    both = set(sides[0]) & set(sides[1])
    if both:
        raise ConfigError("inputs", "must not name a linear that outputs names too", min(both))
    intended = sides[0] + sides[1]
    if not intended:
        raise ConfigError("outputs", "must name at least one linear, if inputs doesn't", settings.outputs)
    linears = {name: plain_linear(module, name) for name in intended}
    scaled = {name: ScaledLinear(linear, name in sides[1]) for name, linear in linears.items()}
    for name, new in scaled.items():
        replace_module(module, name, new)

    def collect() -> dict[str, Tensor]:
        vectors = {name: 1 + new.ia3_change.detach().float() for name, new in scaled.items()}
        return {f"{name}.ia3_l": vector[None] if scaled[name].on_inputs else vector[:, None] for name, vector in vectors.items()}

    return attached(module, intended, {f"{name}.ia3_change": new.ia3_change for name, new in scaled.items()}, collect)
