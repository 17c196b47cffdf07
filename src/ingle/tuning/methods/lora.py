"""LoRA: a low-rank addition to each linear (arXiv 2106.09685)."""

from ingle.model.module import CausalLM
from ingle.train.low_rank import kaiming
from ingle.tuning.low_rank_settings import LowRankSettings, attach_low_rank
from ingle.tuning.tuning_method import Attached

KIND = "lora"
RATE = 3e-4
Settings = LowRankSettings


def attach(module: CausalLM, layers: tuple[int, ...], settings: LowRankSettings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for targets or a rank that don't fit."""
    return attach_low_rank(module, layers, settings, settings.alpha / settings.rank, seed, kaiming)[0]
