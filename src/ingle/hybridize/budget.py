"""Budget: how many groups may keep full attention, so that a state stays within its size."""

from collections.abc import Collection, Sequence

from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.core.state_layout import StateLayout
from ingle.hybridize.settings import LEAST_DIALOGUE, HybridSettings, Lesson

Group = tuple[int, int]
"""Layer and key-value group."""


def all_groups(config: ModelConfig) -> list[Group]:
    """All groups of a model, layer by layer."""
    return [(layer, group) for layer in range(len(config.layers)) for group in range(config.num_kv_heads)]


def layers_of(config: ModelConfig, kept: Collection[Group], settings: HybridSettings) -> tuple[LayerSpec, ...]:
    """Make layers in which these groups keep full attention, and all others stream."""
    memory = "none" if settings.method == "training-free" else settings.memory
    layers = []
    for i in range(len(config.layers)):
        retrieval = tuple(group for layer, group in sorted(kept) if layer == i)
        whole = len(retrieval) == config.num_kv_heads
        layers.append(LayerSpec(retrieval) if whole else LayerSpec(retrieval, settings.window, settings.sinks, memory))
    return tuple(layers)


def share_of(config: ModelConfig, layers: tuple[LayerSpec, ...], tokens: int) -> float:
    """Size of a state of so many tokens, as a share of the original's, at the same precision."""
    whole, hybrid = StateLayout.of(config), StateLayout.of(config.with_layers(layers))
    return hybrid.nbytes(tokens) / whole.nbytes(tokens)


def retrieval_count(config: ModelConfig, settings: HybridSettings) -> int:
    """Count the groups that keep full attention: the number in the settings, or the most that the budget allows.

    Raises ConfigError for a model that is a hybrid already, and for a budget that can't be met.
    """
    config.check_plain("made a hybrid")
    if not config.is_transformer:
        raise ConfigError("model", "must have full attention everywhere", "a hybrid", "Name the original model.")
    tokens = min(settings.context, config.context_length)
    groups = all_groups(config)

    def share(count: int) -> float:  # spread evenly over the layers: the bytes hardly depend on which groups they are
        chosen = [groups[i * len(groups) // count] for i in range(count)] if count else []
        return share_of(config, layers_of(config, chosen, settings), tokens)

    if settings.retrieval is not None:
        if settings.retrieval > len(groups):
            raise ConfigError("retrieval", f"must be at most {len(groups)}, all groups of the model", settings.retrieval)
        return settings.retrieval
    fitting = [count for count in range(len(groups) + 1) if share(count) <= settings.state_budget]
    if not fitting:
        cure = f"Without any full attention it is {share(0):.3f}; lower the window, or raise the budget."
        raise ConfigError("state_budget", f"can't be met at {tokens} tokens", f"{settings.state_budget:.4f}", cure)
    return max(fitting)


def check_lengths(config: ModelConfig, settings: HybridSettings) -> None:
    """Raises ConfigError where nothing would leave a window, so that memories learn nothing, and where a dialogue has no room."""
    near, lessons = settings.window + settings.sinks, settings.lessons
    lengths: dict[str, tuple[int, Sequence[Lesson]]] = {"search.tokens": (settings.search.tokens, ())}
    if settings.method == "distil" and settings.memory != "none":
        lengths["lessons.tokens"] = lessons.tokens, lessons.kinds
        if lessons.long_documents:
            lengths["lessons.long_tokens"] = lessons.long_tokens, lessons.long_kinds
    for name, (tokens, kinds) in lengths.items():
        length = min(tokens, config.context_length)
        if length <= near:
            rule = f"must be above window + sinks = {near}, or nothing ever leaves a window"
            raise ConfigError(name, rule, length, "Lower the window (--window), or make documents longer.")
        if "asked" in kinds and length < LEAST_DIALOGUE:
            cure = "Leave asked out of the lessons' kinds, or make documents longer."
            raise ConfigError(name, f"must be at least {LEAST_DIALOGUE} for dialogues (asked), and the model's context too", length, cure)
