"""A linear with a low-rank addition, W x + B A x, as LoRA and its relatives train it (arXiv 2106.09685).

The linear's parameters keep their names; `lora_A.weight` [r, K] and `lora_B.weight` [N, r] stand beside them, named as PEFT's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM


class LowRankLinear(nn.Module):
    """y = W x + b + scale · B A x. Shapes: x [..., K], A [r, K], B [N, r]."""

    mask: Tensor | None  # bool [N, K] of a pruned linear: where it is False, W + scale · B A is zero

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.mask = None
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.dropout = scale, dropout
        device = linear.weight.device
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, device=device, dtype=torch.float32)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, device=device, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        if (self.dropout and self.training) or self.mask is not None:
            return self.naive(x)
        y: Tensor = _Added.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, self.lora_A.weight, self.lora_B.weight, self.scale
        )
        return y.view(*x.shape[:-1], -1)

    def naive(self, x: Tensor) -> Tensor:
        """y by PyTorch's own differentiation: used with dropout or a mask, and the naive reference that `forward` must match."""
        if self.mask is not None:
            whole = (self.weight + self.lora_B.weight @ self.lora_A.weight * self.scale) * self.mask.to(x.dtype)
            return nn.functional.linear(x, whole, self.bias)
        return nn.functional.linear(x, self.weight, self.bias) + self.addition(x)

    def addition(self, x: Tensor) -> Tensor:
        """scale · B A x, with dropout on x: [..., N]."""
        dropped = nn.functional.dropout(x, self.dropout, self.training)
        return nn.functional.linear(nn.functional.linear(dropped, self.lora_A.weight), self.lora_B.weight) * self.scale

    def tensors(self) -> dict[str, Tensor]:
        """The delta's tensors, named after the linear: float32, the scale within B."""
        a, b = (part.weight.detach().float() for part in (self.lora_A, self.lora_B))
        return {"lora_A.weight": a.clone(), "lora_B.weight": b * self.scale}


class _Added(torch.autograd.Function):
    """x [T, K] → W x + b + s · B A x [T, N], in the memory of W x; likewise in the backward pass. W and b are never trained."""

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
    g: Tensor, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, t: Tensor, scale: float, needs_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x (if `needs_x`), A and B, from g [T, N], that of W x + scale · B A x, and t = A x [T, r]."""
    u = (g @ b).mul_(scale)
    to_x = (g @ weight).addmm_(u, a) if needs_x else None
    return to_x, u.t() @ x, (g.t() @ t).mul_(scale)


def put_low_rank(
    module: CausalLM, names: Iterable[str], rank: int, scale: float, seed: int, dropout: float = 0.0,
    begin: "Callable[[LowRankLinear, torch.Generator], None] | None" = None, make: type[LowRankLinear] = LowRankLinear,
) -> dict[str, LowRankLinear]:  # fmt: skip
    """Put a `make` in place of each of these linears, its parameters set by `begin` (None: `kaiming`). Returns the new ones by name.

    Raises ConfigError for a rank above the smaller side of a linear; nothing is changed then.
    """
    linears = {name: plain_linear(module, name) for name in names}
    for name, linear in linears.items():
        check_rank(rank, min(linear.in_features, linear.out_features), name)
    generator = torch.Generator().manual_seed(seed)
    placed: dict[str, LowRankLinear] = {}
    for name, linear in linears.items():
        new = placed[name] = make(linear, rank, scale, dropout)
        (begin or kaiming)(new, generator)
        replace_module(module, name, new)
    return placed


def added_parameters(linears: Mapping[str, LowRankLinear]) -> dict[str, nn.Parameter]:
    """Trainable parameters of these linears, by their names in the module."""
    own = {name: linear.named_parameters() for name, linear in linears.items()}
    return {f"{name}.{part}": p for name, parts in own.items() for part, p in parts if part not in ("weight", "bias")}


def replace_module(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the submodule of that name, in the same mode (training or not)."""
    owner, _, part = name.rpartition(".")
    setattr(module.get_submodule(owner), part, new.train(module.get_submodule(name).training))


def all_tensors(linears: Mapping[str, LowRankLinear]) -> dict[str, Tensor]:
    """The delta's tensors of these linears."""
    return {f"{name}.{part}": tensor for name, linear in linears.items() for part, tensor in linear.tensors().items()}


def check_rank(rank: int, most: int, name: str) -> None:
    """Raises ConfigError for a rank above `most`."""
    if rank > most:
        raise ConfigError("rank", f"must be at most {most}, the smaller side of {name}", rank)


def plain_linear(module: nn.Module, name: str) -> nn.Linear:
    """Return the linear of that name. Raises ConfigError where something else stands, as in a module that is tuned already."""
    submodule = module.get_submodule(name)
    if not isinstance(submodule, nn.Linear):
        raise ConfigError(
            "method", f"must find a plain linear at {name}", type(submodule).__name__, "Load the module anew: one method at a time."
        )
    return submodule


def kaiming(linear: LowRankLinear, generator: torch.Generator) -> None:
    """Set A uniform and B zero, as LoRA's authors and PEFT do: the addition is nothing at the start."""
    with torch.no_grad():
        linear.lora_A.weight.copy_(uniform(linear.lora_A.weight.shape, linear.lora_A.in_features**-0.5, generator))
        linear.lora_B.weight.zero_()


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Draw float32 between −bound and bound, the same on every device."""
    return torch.rand(shape, generator=generator) * 2 * bound - bound
