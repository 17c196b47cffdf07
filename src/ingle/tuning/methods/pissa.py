"""PiSSA: LoRA that begins as the largest singular directions of each weight, which stop being part of it (arXiv 2404.02948)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ingle.core.config import Amount, check_bounds
from ingle.model.module import CausalLM
from ingle.train.low_rank import LowRankLinear
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank
from ingle.tuning.tuning_method import Attached

KIND = "lora"
RATE = 2e-4
_MORE = 16  # directions beside those wanted, which make the wanted ones more exact


@dataclass(frozen=True, slots=True)
class Settings(LowRankSettings):
    """LoRA's settings. The delta has twice the rank: it also subtracts the pair's first values."""

    alpha: float = 16.0  # the addition is multiplied by alpha / rank; the paper has alpha = rank
    # Rounds of subspace iteration to find the directions (arXiv 0909.4061); 0 = whole decompositions, many times slower.
    iterations: Amount = 4

    def __post_init__(self) -> None:
        super(Settings, self).__post_init__()
        check_bounds(self)


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for targets or a rank that don't fit.

    While it is trained, the module's weights are the remainder of the model's.
    """
    first: dict[int, dict[str, Tensor]] = {}  # by the linear's identity, the pair's first values

    def begin(linear: LowRankLinear, generator: torch.Generator) -> None:
        weight = linear.weight.detach().float()
        u, s, v = principal(weight, settings.rank, settings.iterations, generator)
        root = (s / linear.scale).sqrt()
        with torch.no_grad():
            linear.lora_A.weight.copy_(root[:, None] * v.t())
            linear.lora_B.weight.copy_(u * root)
        first[id(linear)] = pair = linear.tensors()
        linear.weight.data = (weight - pair["lora_B.weight"] @ pair["lora_A.weight"]).to(linear.weight.dtype)

    low_rank, linears = attach_low_rank(module, layers, settings, settings.alpha / settings.rank, seed, begin)

    def collect() -> dict[str, Tensor]:
        tensors = {}
        for name, linear in linears.items():
            now, then = linear.tensors(), first[id(linear)]
            tensors[f"{name}.lora_A.weight"] = torch.cat((now["lora_A.weight"], then["lora_A.weight"]))
            tensors[f"{name}.lora_B.weight"] = torch.cat((now["lora_B.weight"], -then["lora_B.weight"]), 1)
        return tensors

    return replace(low_rank, collect=collect)


@torch.no_grad()
def principal(weight: Tensor, rank: int, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Largest singular values [rank] of float32 [N, K], descending, and their vectors U [N, rank] and V [K, rank]."""
    size = min(rank + _MORE, *weight.shape)
    if not iterations or size == min(weight.shape):
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
        return u[:, :rank], s[:rank], vt[:rank].t()
    q = torch.randn(weight.shape[1], size, generator=generator).to(weight.device)
    for _ in range(iterations):
        q = torch.linalg.qr(weight.t() @ torch.linalg.qr(weight @ q).Q).Q
    u, s, vt = torch.linalg.svd(weight @ q, full_matrices=False)
    return u[:, :rank], s[:rank], (q @ vt.t())[:, :rank]
