"""A linear with a low-rank addition, W x + B A x, as LoRA and its relatives train it (arXiv 2106.09685).

The linear's parameters keep their names; `lora_A.weight` [r, K] and `lora_B.weight` [N, r] stand beside them, named as PEFT's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM
from ingle.tuning.method import Attached, chosen_linears, replace_module


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
        made = {"device": linear.weight.device, "dtype": torch.float32}
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False, **made)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False, **made)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] → [..., N]."""
        y = nn.functional.linear(x, self.weight, self.bias)
        kept = nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x
        t = nn.functional.linear(kept, self.lora_A.weight)
        if t.ndim == 2:
            return torch.addmm(y, t, self.lora_B.weight.t(), alpha=self.scale)
        return y + nn.functional.linear(t, self.lora_B.weight) * self.scale


def attach_low_rank(
    module: CausalLM, layers: tuple[int, ...], settings: LowRankSettings, scale: float, seed: int,
    begin: Callable[[LowRankLinear, torch.Generator], None], make: type[LowRankLinear] = LowRankLinear,
) -> tuple[Attached, dict[str, LowRankLinear]]:  # fmt: skip
    """Puts a `make` in place of every linear that is meant, its parameters set by `begin`. Returns it, and the new linears by name.

    Raises ConfigError for a rank above the smaller side of a linear.
    """
    intended = chosen_linears(layers, settings.targets)
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, LowRankLinear] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name in intended:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if settings.rank > min(linear.in_features, linear.out_features):
            rule = f"must be at most {min(linear.in_features, linear.out_features)}, the smaller side of {name}"
            raise ConfigError("rank", rule, settings.rank)
        new = make(linear, settings.rank, scale, settings.dropout)
        begin(new, generator)
        replace_module(module, name, new)
        made[name] = new
        parameters |= {f"{name}.{part}": p for part, p in new.named_parameters() if part not in ("weight", "bias")}
    return Attached(parameters, intended, tuple(made), lambda: low_rank_tensors(made.items())), made


def low_rank_tensors(linears: Iterable[tuple[str, LowRankLinear]]) -> Mapping[str, Tensor]:
    """A and B in float32, the scale within B."""
    tensors = {}
    for name, linear in linears:
        tensors[f"{name}.lora_A.weight"] = linear.lora_A.weight.detach().float()
        tensors[f"{name}.lora_B.weight"] = linear.lora_B.weight.detach().float() * linear.scale
    return tensors


def kaiming(linear: LowRankLinear, generator: torch.Generator) -> None:
    """A uniform, B zero: the addition is nothing at the start (as LoRA's authors, and PEFT, begin)."""
    bound = linear.lora_A.in_features**-0.5
    with torch.no_grad():
        values = torch.rand(linear.lora_A.weight.shape, generator=generator) * 2 * bound - bound
        linear.lora_A.weight.copy_(values)
        linear.lora_B.weight.zero_()
