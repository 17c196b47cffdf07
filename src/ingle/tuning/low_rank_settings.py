"""Settings that LoRA and its relatives share, and how they are attached to a model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ingle.core.config import Count, Part, Positive, check_bounds
from ingle.model.module import CausalLM
from ingle.train.low_rank import LowRankLinear, added_parameters, all_tensors, kaiming, put_low_rank
from ingle.tuning.linears import chosen_linears
from ingle.tuning.tuning_method import Attached, attached


@dataclass(frozen=True, slots=True)
class LowRankSettings:
    """Settings of LoRA and its relatives."""

    rank: Count = 16  # rank of the addition: its parameters are rank × (inputs + outputs) for each linear
    alpha: Positive = 32.0  # the addition is multiplied by alpha / rank (rsLoRA: alpha / √rank)
    targets: str = "all"  # linears to change: all, attention, mlp, or names like q_proj,v_proj
    dropout: Part = 0.0  # share of the addition's inputs that a step drops

    def __post_init__(self) -> None:
        check_bounds(self)


def attach_low_rank(
    module: CausalLM, layers: tuple[int, ...], settings: LowRankSettings, scale: float, seed: int,
    begin: Callable[[LowRankLinear, torch.Generator], None] = kaiming, make: type[LowRankLinear] = LowRankLinear,
) -> tuple[Attached, dict[str, LowRankLinear]]:  # fmt: skip
    """Put a `make` in place of every linear that is meant, its parameters set by `begin`. Returns it, and the new linears by name.

    Raises ConfigError for a rank above the smaller side of a linear; nothing is changed then.
    """
    intended = chosen_linears(module.config, layers, settings.targets)
    linears = put_low_rank(module, intended, settings.rank, scale, seed, settings.dropout, begin, make)
    return attached(module, intended, added_parameters(linears), lambda: all_tensors(linears)), linears
