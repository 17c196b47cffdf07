"""Low-rank additions to the linears of a model from which parts were cut (LoRA, arXiv 2106.09685); where weights were cut out, the addition
has the same holes.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.compress.cutting import LINEARS
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM

Array = npt.NDArray[Any]


class Repaired(nn.Module):
    """y = ((W + B A) ⊙ mask) x + b. Shapes: x [..., K], W and mask [N, K], A [r, K], B [N, r]."""

    def __init__(self, linear: nn.Linear, mask: Tensor | None, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.mask = linear.weight, linear.bias, mask
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)
        with torch.no_grad():
            drawn = torch.rand(self.lora_A.weight.shape, generator=generator) * 2 - 1
            self.lora_A.weight.copy_(drawn * linear.in_features**-0.5)
            self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] → [..., N]."""
        if self.mask is None:
            added = nn.functional.linear(nn.functional.linear(x, self.lora_A.weight), self.lora_B.weight)
            return nn.functional.linear(x, self.weight, self.bias) + added
        whole = (self.weight + self.lora_B.weight @ self.lora_A.weight) * self.mask.to(x.dtype)
        return nn.functional.linear(x, whole, self.bias)


def attach(module: CausalLM, masks: Mapping[str, Array], rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Puts a `Repaired` in the place of every linear; `masks`: bool [N, K] by linear. Returns what is to be trained, by name."""
    generator, found = torch.Generator().manual_seed(seed), dict[str, nn.Parameter]()
    layers: Any = module.model.layers
    for i, layer in enumerate(layers):
        for part in LINEARS:
            name, linear = f"model.layers.{i}.{part}", layer.get_submodule(part)
            most = min(linear.in_features, linear.out_features)
            if rank > most:
                raise ConfigError("rank", f"must be at most {most}, the smaller side of {name}", rank)
            mask = masks.get(name)
            new = Repaired(linear, None if mask is None else torch.from_numpy(mask), rank, generator)
            owner, _, last = part.rpartition(".")
            setattr(layer.get_submodule(owner), last, new)
            found |= {f"{name}.{side}.weight": getattr(new, side).weight for side in ("lora_A", "lora_B")}
    return found


def additions(parameters: Mapping[str, nn.Parameter]) -> dict[str, Array]:
    """The delta's tensors, float32."""
    return {name: parameter.detach().float().cpu().numpy().copy() for name, parameter in parameters.items()}
