"""Groups that lose their sight: the same weights, but some head groups see no further than their window.

A retrieval group becomes a streaming one without a memory; a streaming group loses its memory. So the parts of a hybrid that carry what
lies far back can be switched off one by one, and its answers compared. As long as nothing has left a window, logits stay what they were.
"""

from collections.abc import Collection
from dataclasses import replace

from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.engine.language_model import LanguageModel

Group = tuple[int, int]  # layer and key-value group
Reach = tuple[int, int]  # tokens of a window, and the first tokens that are seen beside it


def retrieval_groups(config: ModelConfig) -> tuple[Group, ...]:
    """Return the groups with full attention."""
    return tuple((i, group) for i, spec in enumerate(config.layers) for group in spec.retrieval)


def remembering_groups(config: ModelConfig) -> tuple[Group, ...]:
    """Return the groups with a recurrent memory."""
    return tuple((i, group) for i, spec in enumerate(config.layers) for group in spec.remembering(config.num_kv_heads))


def widest_reach(config: ModelConfig) -> Reach | None:
    """Return the widest window of any streaming group, with its first tokens; None if there is no window."""
    return max(((spec.window, spec.sinks) for spec in config.layers if spec.window), default=None)


def short_sighted(config: ModelConfig, groups: Collection[Group], reach: Reach | None = None) -> ModelConfig:
    """Return the config in which these groups see no further than their window. `reach` is for layers that have none; by default the
    widest of the other layers.

    Raises ConfigError for groups that the model doesn't have or that see no further anyway, and where there is no window.
    """
    far = {*retrieval_groups(config), *remembering_groups(config)}
    if wrong := sorted(set(groups) - far):
        cure = "A group is (layer, group); only retrieval groups, and those with a memory, see further than a window."
        raise ConfigError("groups", "must be some that see further than a window", f"{wrong[0]}", cure)
    reach = reach or widest_reach(config)
    layers = list(config.layers)
    for i in sorted({layer for layer, _ in groups}):
        layers[i] = _without(config, i, {group for layer, group in groups if layer == i}, reach)
    return config.with_layers(tuple(layers))


def _without(config: ModelConfig, index: int, off: set[int], reach: Reach | None) -> LayerSpec:
    count, spec = config.num_kv_heads, config.layers[index]
    window, sinks = (spec.window, spec.sinks) if spec.streaming(count) else reach or (0, 0)
    if not window:
        cure = "Give a window, or switch off groups of layers that have one."
        raise ConfigError("groups", f"Layer {index} has no window: groups that see no further would see nothing", "", cure)
    remembering = [group for group in spec.remembering(count) if group not in off]
    plain = LayerSpec(tuple(group for group in spec.retrieval if group not in off), window, sinks)
    if not remembering:
        return plain
    forgetful = tuple(group for group in plain.streaming(count) if group not in remembering)
    return replace(plain, memory=spec.memory, forgetful=forgetful or None)


def without_sight(model: LanguageModel, groups: Collection[Group], reach: Reach | None = None) -> LanguageModel:
    """Return the model in which these groups see no further than their window, with the same weights in memory. It takes milliseconds.

    Its digest is another one, so its states are never taken for the model's. Its adapter, if it has one, acts as before.
    Raises ConfigError as `short_sighted` does, and for a model with virtual tokens.
    """
    if model.backend.runner is not model.backend:
        cure = "Name the model without its last delta, if that holds virtual tokens."
        raise ConfigError("model", "must be one that reads nothing before a text, on the CPU", model.name, cure)
    config = short_sighted(model.backend.config, groups, reach)
    return replace(model, backend=model.backend.seeing(config.layers))
