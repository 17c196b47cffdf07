"""Time and memory of a lesson, before it begins: what learns of the model, a row of documents, and the served model that the gate asks.

Imports no PyTorch, so that a server can tell it too.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress

from ingle.core.errors import IngleError
from ingle.core.example import Example
from ingle.core.headroom import Headroom, Need, room_for, speed
from ingle.engine.packs import served_size
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.learn.learning_settings import LessonSettings, StyleSettings
from ingle.model.tensor import size_of
from ingle.train.making import LIBRARIES, TrainingPass, computed_bytes, low_rank_parameters
from ingle.tuning.linears import chosen_layers

CURE = "It acts from memory all the same. When there is more memory: ingle learn --consolidate"
_BYTES_A_TOKEN, _TEMPLATE = 3.5, 12  # bytes of text in a token, and tokens that a template puts around a question and its answer
_GATE_TOKENS = 4000  # tokens that the gate has both models read and write, about one lesson
_GATE_STATES = 1500  # tokens of the states that it holds at once
# Until PyTorch, the kernels, and the gate's probes are there, where this process has not loaded them yet; and without PyTorch.
_START_S, _OWN_START_S = 6.0, 2.0
_OWN_ROW, _PROGRAM = 192, 110_000_000  # without PyTorch: tokens of a row (learn/lesson.py), and bytes of what is loaded beside the weights


def lesson_room(
    home: Home, kept: Kept, examples: Sequence[Example], lesson: LessonSettings, style: StyleSettings, memory_mb: int = 0,
    free: int | None = None,
) -> Headroom:  # fmt: skip
    """Return what a lesson of these examples takes, beside the memory that it may have. Raises the errors of opening a model's files."""
    return room_for(lesson_need(home, kept, examples, lesson, style), free, "learn.memory_mb", memory_mb << 20)


def awaited_room(home: Home, examples: Sequence[Example], lesson: LessonSettings, style: StyleSettings, memory_mb: int) -> Headroom | None:
    """Return what the next lesson takes, of the example that is being learned, or of the oldest one that waits; None if none does, or its
    model isn't here."""
    waiting = [one for one in examples if one.learn and one.kind == "correction" and one.state in ("pending", "learning")]
    for one in sorted(waiting, key=lambda one: (one.state != "learning", one.seq)):
        with suppress(IngleError):  # its model is missing or damaged: it waits until it is here again
            return lesson_room(home, get_kept(home, one.model), [one], lesson, style, memory_mb)
    return None


def lesson_need(home: Home, kept: Kept, examples: Sequence[Example], lesson: LessonSettings, style: StyleSettings) -> Need:
    """Predict the memory and the time of a lesson of these examples."""
    served, each = served_size(home, kept), computed_bytes(lesson.precision)
    config, size = served.config, size_of(served.config)
    layers = len(chosen_layers(config, lesson.layers))
    longest = max((_tokens(one) for one in examples), default=0)
    rated = any(one.kind == "rating" for one in examples)
    if rated:
        row = (style.batch_documents + style.prose_documents) * max(longest, style.own_tokens)
        steps = (style.epochs + style.rounds * style.own_epochs) * max(1, len(examples) // style.batch_documents)
        alone = style.rounds * len(examples) * style.own_answers * style.own_tokens + 12 * style.prose_tokens
    else:
        row = min(lesson.batch_documents, lesson.wordings * len(examples) + lesson.contrasts) * longest
        steps = lesson.max_steps + lesson.more_steps * (len(examples) - 1)
        alone = (lesson.wordings + 2 * lesson.contrasts) * len(examples) * longest
    trained = low_rank_parameters(config, layers, lesson.rank)
    course, share = TrainingPass(config, "low-rank", row, layers, trained, each), layers / len(config.layers)
    gate = {"the model that the gate asks": served.weights + served.packing + served.state_bytes(_GATE_STATES)}
    if rated:
        parts = {"the model in PyTorch": size.whole * each, "the texts it learns from": course.row_bytes + course.trained_bytes} | gate
        parts["PyTorch itself"] = LIBRARIES
    else:
        upper, small = (
            share * (size.read - size.head) + size.head,
            TrainingPass(config, "low-rank", min(row, _OWN_ROW + longest), layers, trained, 4),
        )
        parts = {"its upper layers": round(each * upper), "the texts it learns from": small.row_bytes + small.trained_bytes} | gate
        parts["the program itself"] = _PROGRAM
    learned = steps * (course.operations(row) * share + 2 * size.head * row) + 2 * size.read * alone
    asked = 2 * size.read * _GATE_TOKENS
    start = _OWN_START_S if not rated else 0.5 if "torch" in sys.modules else _START_S
    seconds = start + learned / speed(lesson.threads, each) + asked / speed(1, 1)
    return Need("Learning this", parts, seconds)


def _tokens(one: Example) -> int:
    """Tokens of a question with its answer, about."""
    texts = [one.question, one.answer, *(text for _, text in one.before)]
    return round(sum(len(text.encode()) for text in texts) / _BYTES_A_TOKEN) + _TEMPLATE * (2 + len(one.before))
