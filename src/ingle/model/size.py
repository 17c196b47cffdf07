"""Sizes of a model, from its config alone: how many numbers it holds, and where."""

import math
from dataclasses import dataclass

from ingle.core.spec import ModelConfig
from ingle.model.expected import expected_shapes


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Numbers of parameters."""

    whole: int
    """All of them; an output matrix that is the embedding counts once."""
    layer: int
    """Those of one layer, on average."""
    head: int
    """Those of the output matrix."""
    largest: int
    """Those of the largest tensor."""
    layers: int
    """Number of layers."""

    @property
    def read(self) -> int:
        """Those that a token is multiplied with."""
        return self.head + self.layer * self.layers


def size_of(config: ModelConfig) -> ModelSize:
    """Count the parameters of a model of this config."""
    counts = {name: math.prod(shape) for name, shape in expected_shapes(config).items()}
    layers = sum(count for name, count in counts.items() if name.startswith("model.layers."))
    head = config.vocab_size * config.hidden_size
    return ModelSize(sum(counts.values()), layers // len(config.layers), head, max(counts.values()), len(config.layers))
