"""Time and memory of a tune, and of an addition that teaches one thing (harden, debias), before weights are loaded."""

from dataclasses import dataclass

from ingle.core.headroom import Need, speed
from ingle.engine.answer import STARTS_BYTES
from ingle.engine.packs import LIBRARIES as SERVING
from ingle.engine.packs import ServedSize
from ingle.model.tensor import size_of
from ingle.train.loop_settings import TrainSettings
from ingle.train.making import LIBRARIES, TrainingPass, computed_bytes, low_rank_parameters
from ingle.tuning.linears import chosen_layers
from ingle.tuning.tune_settings import TuneSettings, method_settings

_JUDGED_TOKENS = 24_000  # tokens that the gate and the held-out measurements read and write
_HELD_TOKENS = 60  # tokens of a document that is held, with its question
_START_S = 15.0
_STATES = 2048  # tokens of the states that measuring holds at once


@dataclass(frozen=True, slots=True)
class TuneTokens:
    """Tokens of a tune's data."""

    course: TrainSettings  # the course of the run, with what few data changed
    all: int  # those of the examples to learn from


def measuring_bytes(served: ServedSize) -> int:
    """Return what a model takes that is measured as it is served, many items at once."""
    return served.weights + served.packing + SERVING + served.state_bytes(_STATES)


def tune_need(served: ServedSize, settings: TuneSettings, data: TuneTokens, teacher: ServedSize | None = None) -> Need:
    """Predict the memory and the time of a tune of this model on a CPU."""
    config, course, each = served.config, data.course, computed_bytes(data.course.precision)
    size, layers = size_of(config), chosen_layers(config, settings.layers)
    deep = len(config.layers) - min(layers)
    whole = settings.method == "full"
    rank = getattr(method_settings(settings), "rank", 16)
    outside = size.whole - len(config.layers) * size.layer
    trained = outside + len(layers) * size.layer if whole else low_rank_parameters(config, len(layers), rank)
    row = max(1, min(course.batch_tokens, data.all))
    held = _HELD_TOKENS * settings.hold.documents if settings.hold.on and settings.objective.kind == "answers" else 0
    one = TrainingPass(config, "whole" if whole else "low-rank", row + held, deep, trained, each, course.recompute)
    followed = size_of(teacher.config).whole if teacher is not None else 0
    asked = measuring_bytes(served)
    begins = {"the model in PyTorch": 4 * (size.whole + followed), "the model as it is served": asked, "PyTorch itself": LIBRARIES}
    frozen = (0 if whole else each * size.whole) + each * followed
    learns = {
        "the model in PyTorch": frozen, "what is trained, with its gradients": one.trained_bytes, "a batch": one.row_bytes,
        "Ingle itself": SERVING, "PyTorch itself": LIBRARIES,
    }  # fmt: skip
    tokens = course.max_steps * row * course.accumulate if course.max_steps else course.epochs * data.all
    learning = (tokens * (1 + held / row) + data.all) * one.operations(1) / speed(None, each)
    judging = 2 * size.read * _JUDGED_TOKENS * 2 / speed(settings.judge.threads, 1)
    parts = max((begins, learns), key=lambda moment: sum(moment.values()))
    return Need("This tune", parts, _START_S + learning + judging)


def addition_need(act: str, served: ServedSize, course: TrainSettings, rank: int, layers: str, learnt: int, asked: int) -> Need:
    """Predict the memory and the time of training a low-rank addition beside the model as it was, and of measuring both on a CPU.

    `learnt`: tokens of an epoch; `asked`: tokens that measuring reads and writes. The served model stays open beside the training.
    """
    config, size, each = served.config, size_of(served.config), computed_bytes(course.precision)
    chosen = chosen_layers(config, layers)
    row, deep = max(1, min(course.batch_tokens, learnt)), len(config.layers) - min(chosen)
    one = TrainingPass(config, "low-rank", row, deep, low_rank_parameters(config, len(chosen), rank), each, course.recompute)
    parts = {
        "the model in PyTorch": each * size.whole, "what is trained, with its gradients": one.trained_bytes, "a batch": one.row_bytes,
        "the model as it is served": measuring_bytes(served) + STARTS_BYTES, "PyTorch itself": LIBRARIES,
    }  # fmt: skip
    tokens = course.max_steps * row * course.accumulate if course.max_steps else course.epochs * learnt
    learning = tokens * (one.operations(1) + 2 * size.read) / speed(None, each)  # the model before reads them, too
    return Need(act, parts, _START_S + learning + 2 * size.read * (asked + _JUDGED_TOKENS) / speed(None, 1))
