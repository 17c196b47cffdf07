"""A linear with a low-rank addition, W x + B A x, as LoRA and its relatives train it (arXiv 2106.09685).

The linear's parameters keep their names; `lora_A.weight` [r, K] and `lora_B.weight` [N, r] stand beside them, named as PEFT's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.tuning.method import Attached, attached, chosen_linears, replace_module


@dataclass(frozen=True, slots=True)
class LowRankSettings:
    """What LoRA and its relatives are told."""

    rank: int = 16
    """Of the addition: its parameters are rank × (inputs + outputs) for each linear."""
    alpha: float = 32.0
    """The addition is multiplied by alpha / rank (rsLoRA: alpha / √rank)."""
    targets: str = "all"
    """Which linears: all, attention, mlp, or names like q_proj,v_proj."""
    dropout: float = 0.0
    """Share of the addition's inputs that a step leaves out."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("rank", "must be at least 1", self.rank)
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", "must be at least 0 and below 1", self.dropout)
        if self.alpha <= 0:
            raise ConfigError("alpha", "must be above 0", self.alpha)


class LowRankLinear(nn.Module):
    """y = W x + b + scale · B A x. Shapes: x [..., K], A [r, K], B [N, r]."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.dropout = scale, dropout
        device = linear.weight.device
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, device=device, dtype=torch.float32)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, device=device, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] → [..., N]."""
        if self.dropout and self.training:
            return self.naive(x)
        y: Tensor = _Added.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, self.lora_A.weight, self.lora_B.weight, self.scale
        )
        return y.view(*x.shape[:-1], -1)

    def naive(self, x: Tensor) -> Tensor:
        """The same by PyTorch's own differentiation: with dropout, and the twin that `forward` must match."""
        return nn.functional.linear(x, self.weight, self.bias) + self.addition(x)

    def addition(self, x: Tensor) -> Tensor:
        """scale · B A x, with dropout on x: [..., N]."""
        kept = nn.functional.dropout(x, self.dropout, self.training)
        return nn.functional.linear(nn.functional.linear(kept, self.lora_A.weight), self.lora_B.weight) * self.scale

    def tensors(self) -> dict[str, Tensor]:
        """The delta's, by their names after the linear's: float32, the scale within B."""
        a, b = (part.weight.detach().float() for part in (self.lora_A, self.lora_B))
        return {"lora_A.weight": a.clone(), "lora_B.weight": b * self.scale}


class _Added(torch.autograd.Function):
    """x [T, K] → W x + b + s · B A x [T, N], in the memory of W x; on the way back likewise. W and b are never trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        t = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, t)
        ctx.scale = scale
        return nn.functional.linear(x, weight, bias).addmm_(t, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, a, b, t), [g] = ctx.saved_tensors, grads
        to_x, to_a, to_b = added_backward(g, x, weight, a, b, t, ctx.scale, ctx.needs_input_grad[0])
        return to_x, None, None, to_a, to_b, None


def added_backward(
    g: Tensor, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, t: Tensor, scale: float, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x (if that is wanted), A and B, from g [T, N], that of W x + scale · B A x, and t = A x [T, r]."""
    u = (g @ b).mul_(scale)
    to_x = (g @ weight).addmm_(u, a) if wanted else None
    return to_x, u.t() @ x, (g.t() @ t).mul_(scale)


def attach_low_rank(
    module: CausalLM, layers: tuple[int, ...], settings: LowRankSettings, scale: float, seed: int,
    begin: Callable[[LowRankLinear, torch.Generator], None], make: type[LowRankLinear] = LowRankLinear,
) -> tuple[Attached, dict[str, LowRankLinear]]:  # fmt: skip
    """Puts a `make` in place of every linear that is meant, its parameters set by `begin`. Returns it, and the new linears by name.

    Raises ConfigError for a rank above the smaller side of a linear; then nothing was changed.
    """
    intended = chosen_linears(layers, settings.targets)
    linears = {name: plain_linear(module, name) for name in intended}
    for name, linear in linears.items():
        check_rank(settings.rank, min(linear.in_features, linear.out_features), name)
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, LowRankLinear] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name, linear in linears.items():
        new = made[name] = make(linear, settings.rank, scale, settings.dropout)
        begin(new, generator)
        replace_module(module, name, new)
        parameters |= {f"{name}.{part}": p for part, p in new.named_parameters() if part not in ("weight", "bias")}
    return attached(module, intended, parameters, lambda: all_tensors(made)), made


def all_tensors(linears: Mapping[str, LowRankLinear]) -> dict[str, Tensor]:
    """The delta's tensors of these linears."""
    return {f"{name}.{part}": tensor for name, linear in linears.items() for part, tensor in linear.tensors().items()}


def check_rank(rank: int, most: int, name: str) -> None:
    """Raises ConfigError for a rank above `most`."""
    if rank > most:
        raise ConfigError("rank", f"must be at most {most}, the smaller side of {name}", rank)


def plain_linear(module: nn.Module, name: str) -> nn.Linear:
    """The linear of that name. Raises ConfigError where something else stands, as in a module that is tuned already."""
    found = module.get_submodule(name)
    if not isinstance(found, nn.Linear):
        raise ConfigError(
            "method", f"must find a plain linear at {name}", type(found).__name__, "Load the module anew: one method at a time."
        )
    return found


def kaiming(linear: LowRankLinear, generator: torch.Generator) -> None:
    """A uniform, B zero: the addition is nothing at the start (as LoRA's authors, and PEFT, begin)."""
    with torch.no_grad():
        linear.lora_A.weight.copy_(uniform(linear.lora_A.weight.shape, linear.lora_A.in_features**-0.5, generator))
        linear.lora_B.weight.zero_()


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """float32 between −bound and bound, the same on every device."""
    return torch.rand(shape, generator=generator) * 2 * bound - bound
