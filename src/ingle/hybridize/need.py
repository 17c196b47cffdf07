"""Time and memory of a conversion, before its weights are loaded."""

from ingle.core.pace import speed
from ingle.core.room import Need
from ingle.core.spec import ModelConfig
from ingle.engine.need import LIBRARIES as SERVING
from ingle.engine.need import ServedSize
from ingle.hybridize.budget import all_groups, layers_of
from ingle.hybridize.settings import HybridSettings
from ingle.model.size import size_of
from ingle.train.need import LIBRARIES, TrainingPass, computed_bytes
from ingle.train.settings import TrainSettings

CURE = "Lower search.tokens, or set logits.recompute and longer.recompute to true, which keep little and take a third more time."
_JUDGED_TOKENS = 60_000
"""Tokens that the gate has both models read and write."""
_START_S = 30.0


def hybrid_need(served: ServedSize, settings: HybridSettings) -> Need:
    """Predict the memory and the time of a conversion of this model on a CPU."""
    config, each = served.config, computed_bytes(settings.mixers.precision)
    size, passes = size_of(config), _passes(config, settings, each)
    asked = served.weights + served.packing + SERVING + served.state_bytes(settings.context)
    rows = max(one.row_bytes + one.trained_bytes for one, _ in passes)
    largest = {"the model in PyTorch": each * size.whole, "PyTorch itself": LIBRARIES}
    moments = [{**largest, "a batch": rows}]
    if settings.method == "distil":
        moments.append({**largest, "the model as it is served": asked})
    rate = speed(None, each)
    learning = sum(one.operations(tokens) for one, tokens in passes) / rate
    judging = 4 * size.read * _JUDGED_TOKENS / speed(None, 1)
    return Need("This conversion", max(moments, key=lambda one: sum(one.values())), _START_S + learning + judging)


def _passes(config: ModelConfig, settings: HybridSettings, each: int) -> list[tuple[TrainingPass, int]]:
    """Return the search and every lesson, with how many tokens each reads."""
    layers, within = len(config.layers), config.context_length
    search, lessons = settings.search, settings.lessons
    sought = min(search.tokens, within)
    tries = search.rounds + (1 + search.exchanges if search.exchanges else 0)
    passes = [(TrainingPass(config, "search", sought, layers, 0, each), sought * search.documents * tries)]
    if settings.method != "distil":
        return passes
    hybrid = config.with_layers(layers_of(config, all_groups(config)[:0], settings))
    memories = size_of(hybrid).whole - size_of(config).whole

    def lesson(kind: str, course: TrainSettings, tokens: int, documents: int) -> tuple[TrainingPass, int]:
        row = min(course.batch_tokens, tokens * documents)
        read = course.max_steps * course.batch_tokens if course.max_steps else course.epochs * documents * min(tokens, within)
        again = course.recompute and kind != "mixers"  # mixers don't go through the layers, so nothing can be made again
        one = TrainingPass(hybrid, "mixers" if kind == "mixers" else "follow", row, layers, memories, each, again)
        return one, read + 2 * lessons.held_out * min(tokens, within) // 3

    passes += [lesson(name, getattr(settings, name), lessons.tokens, lessons.documents) for name in ("mixers", "logits")]
    if lessons.long_documents:
        passes.append(lesson("longer", settings.longer, lessons.long_tokens, lessons.long_documents))
    return passes
