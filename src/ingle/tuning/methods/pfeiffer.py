"""Pfeiffer adapters: a bottleneck behind the MLP of each layer (arXiv 2005.00247)."""

from ingle.model.module import CausalLM
from ingle.tuning.bottleneck import BottleneckSettings, attach_bottlenecks
from ingle.tuning.tuning_method import Attached

KIND = "bottleneck"
RATE = 1e-3
Settings = BottleneckSettings


def attach(module: CausalLM, layers: tuple[int, ...], settings: BottleneckSettings, seed: int) -> Attached:
    """See `tuning.tuning_method.Method`. Raises ConfigError for a rank above hidden."""
    return attach_bottlenecks(module, layers, ("mlp.down_proj",), settings.rank, seed)
