"""rsLoRA: LoRA whose scale falls with the root of the rank, so that high ranks still learn (arXiv 2312.03732)."""

from dataclasses import dataclass

from ingle.model.module import CausalLM
from ingle.train.low_rank import kaiming
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank
from ingle.tuning.tuning_method import Attached

KIND = "lora"
RATE = 3e-4


@dataclass(frozen=True, slots=True)
class Settings(LowRankSettings):
    """LoRA's settings; with the default alpha the scale is LoRA's own at rank 16."""

    alpha: float = 8.0  # the addition is multiplied by alpha / √rank


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for targets or a rank that don't fit."""
    return attach_low_rank(module, layers, settings, settings.alpha / settings.rank**0.5, seed, kaiming)[0]
