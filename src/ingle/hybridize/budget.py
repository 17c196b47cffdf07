"""How many groups may keep full attention so that a state stays within its budget."""

from collections.abc import Collection, Sequence

from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.core.state_layout import StateLayout
from ingle.hybridize.settings import LEAST_TALK, HybridSettings, Lesson

Group = tuple[int, int]
"""Layer and key-value group."""


def all_groups(config: ModelConfig) -> list[Group]:
    """Of a model, layer by layer."""
    return [(layer, group) for layer in range(len(config.layers)) for group in range(config.num_kv_heads)]


def layers_of(config: ModelConfig, kept: Collection[Group], settings: HybridSettings) -> tuple[LayerSpec, ...]:
    """Layers in which these groups keep full attention, and all others stream."""
    memory = "none" if settings.method == "training-free" else settings.memory
    found = []
    for i in range(len(config.layers)):
        retrieval = tuple(group for layer, group in sorted(kept) if layer == i)
        whole = len(retrieval) == config.num_kv_heads
        found.append(LayerSpec(retrieval) if whole else LayerSpec(retrieval, settings.window, settings.sinks, memory))
    return tuple(found)


def share_of(config: ModelConfig, layers: tuple[LayerSpec, ...], tokens: int) -> float:
    """Bytes of a state of so many tokens, as a share of the original's, at the same precision."""
    whole, hybrid = StateLayout.of(config), StateLayout.of(config.with_layers(layers))
    return hybrid.nbytes(tokens) / whole.nbytes(tokens)


def retrieval_count(config: ModelConfig, settings: HybridSettings) -> int:
    """How many groups keep full attention: what was asked for, or the most that the budget allows.

    Raises ConfigError for a model that is a hybrid already, and for a budget that can't be met.
    """
    if not config.is_transformer:
        raise ConfigError("model", "must have full attention everywhere", "a hybrid", "Name the original model.")
    tokens = min(settings.context, config.context_length)
    groups = all_groups(config)

    def share(count: int) -> float:  # spread evenly over the layers: which groups they are matters little for the bytes
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
    """Raises ConfigError where nothing would leave a window, so that groups are worth nothing and memories learn nothing, and where a
    talk has no room.
    """
    near, told = settings.window + settings.sinks, settings.lessons
    lengths: dict[str, tuple[int, Sequence[Lesson]]] = {"search.tokens": (settings.search.tokens, ())}
    if settings.method == "distil" and settings.memory != "none":
        lengths["lessons.tokens"] = told.tokens, told.kinds
        if told.long_documents:
            lengths["lessons.long_tokens"] = told.long_tokens, told.long_kinds
    for name, (asked, kinds) in lengths.items():
        length = min(asked, config.context_length)
        if length <= near:
            rule = f"must be above window + sinks = {near}, or nothing ever leaves a window"
            raise ConfigError(name, rule, length, "Lower the window (--window), or make documents longer.")
        if "asked" in kinds and length < LEAST_TALK:
            cure = "Leave asked out of the lessons' kinds, or make documents longer."
            raise ConfigError(name, f"must be at least {LEAST_TALK} for talks (asked), and the model's context too", length, cure)
