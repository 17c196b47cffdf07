"""Shapes: from settings to a `ModelConfig`, and its number of parameters."""

import math
from dataclasses import replace

from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec, ModelConfig, Rope
from ingle.model.tensor import expected_shapes
from ingle.scaling.settings import ShapeSettings


def config_of(shape: ShapeSettings, vocab_size: int) -> ModelConfig:
    """The config of a model of this shape. Raises ConfigError for groups that aren't there, and for too few `parameters`."""
    config = ModelConfig(
        family="qwen3" if shape.qk_norm else "llama",
        vocab_size=vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp or -(-shape.width * 8 // 3 // 32) * 32,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads,
        layers=layers_of(shape),
        context_length=shape.context,
        rope=Rope(theta=shape.rope_theta),
        tie_embeddings=shape.tied,
        qk_norm=shape.qk_norm,
    )
    return config if not shape.parameters else as_large_as(config, shape.parameters)


def layers_of(shape: ShapeSettings) -> tuple[LayerSpec, ...]:
    """Attention and memory of each layer."""
    everything = tuple(range(shape.kv_heads))
    chosen: dict[int, tuple[int, ...]] = {}
    if shape.retrieval == "all":
        chosen = dict.fromkeys(range(shape.layers), everything)
    elif isinstance(shape.retrieval, int):
        chosen = {i: everything for i in range(shape.layers) if (i + 1) % shape.retrieval == 0}
    elif isinstance(shape.retrieval, tuple):
        for layer, group in shape.retrieval:
            if not (0 <= layer < shape.layers and 0 <= group < shape.kv_heads):
                rule = f"must name layers below {shape.layers} and groups below {shape.kv_heads}"
                raise ConfigError("model.retrieval", rule, [layer, group])
            chosen[layer] = tuple(sorted({*chosen.get(layer, ()), group}))
    whole, rest = LayerSpec(everything), LayerSpec((), shape.window, shape.sinks, shape.memory)
    return tuple(whole if chosen.get(i) == everything else replace(rest, retrieval=chosen.get(i, ())) for i in range(shape.layers))


def parameters_of(config: ModelConfig) -> int:
    """Count the parameters of a model of this config; a tied matrix counts once."""
    return sum(math.prod(size) for size in expected_shapes(config).values())


def memory_parameters_of(config: ModelConfig) -> int:
    """Count those that belong to recurrent memories."""
    return sum(math.prod(size) for name, size in expected_shapes(config).items() if ".memory." in name)


def as_large_as(config: ModelConfig, parameters: int) -> ModelConfig:
    """Set the width of the MLP that brings the model nearest to so many parameters. Raises ConfigError where no width does."""
    one, two = (parameters_of(replace(config, intermediate_size=width)) for width in (1, 2))
    width = 1 + round((parameters - one) / (two - one))
    if width < 1:
        cure = "Raise it, or lower tokenizer.size, model.width or model.layers."
        raise ConfigError("model.parameters", f"must be at least {one:,} for this shape", f"{parameters:,}", cure)
    return replace(config, intermediate_size=width)
