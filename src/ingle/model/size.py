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
    read: int
    """Those that a token is multiplied with: of experts, those that it is given to."""


def size_of(config: ModelConfig) -> ModelSize:
    """Count the parameters of a model of this config."""
    counts = {name: math.prod(shape) for name, shape in expected_shapes(config).items()}
    layers = sum(count for name, count in counts.items() if name.startswith("model.layers."))
    experts = sum(count for name, count in counts.items() if ".mlp.experts." in name)
    idle = round(experts * (1 - config.experts.chosen / config.experts.count)) if config.experts else 0
    head, count = config.vocab_size * config.hidden_size, len(config.layers)
    return ModelSize(sum(counts.values()), layers // count, head, max(counts.values()), count, head + layers - idle)
