"""BitFit: biases alone, new ones where the model has none (arXiv 2106.10199)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ingle.model.module import CausalLM
from ingle.train.low_rank import plain_linear
from ingle.tuning.linears import chosen_linears
from ingle.tuning.tuning_method import Attached, attached

KIND = "bias"
RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of BitFit."""

    targets: str = "all"  # linears whose biases are trained: all, attention, mlp, or names like q_proj,v_proj


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`; nothing is random. Raises ConfigError for targets that aren't there."""
    intended = chosen_linears(module.config, layers, settings.targets)
    linears = {name: plain_linear(module, name) for name in intended}
    before: dict[str, Tensor] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name, linear in linears.items():
        old: Tensor | None = linear.bias
        before[f"{name}.bias"] = torch.zeros(linear.out_features, device=linear.weight.device) if old is None else old.detach().float()
        linear.bias = parameters[f"{name}.bias"] = nn.Parameter(before[f"{name}.bias"].clone())
    return attached(module, intended, parameters, lambda: {name: p.detach().float() - before[name] for name, p in parameters.items()})
