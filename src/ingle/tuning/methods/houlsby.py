"""Houlsby adapters: a bottleneck behind attention and another behind the MLP of each layer (arXiv 1902.00751)."""

from dataclasses import dataclass

from ingle.model.module import CausalLM
from ingle.tuning.bottleneck import BottleneckSettings, attach_bottlenecks
from ingle.tuning.tuning_method import Attached

KIND = "bottleneck"
RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Settings(BottleneckSettings):
    """Settings of two adapters a layer. Half as wide as Pfeiffer's one, they have as many parameters."""

    rank: int = 32  # width of the bottleneck: an adapter has 2 × rank × hidden parameters, and a few more


def attach(module: CausalLM, layers: tuple[int, ...], settings: Settings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for a rank above hidden."""
    return attach_bottlenecks(module, layers, ("self_attn.o_proj", "mlp.down_proj"), settings.rank, seed)
