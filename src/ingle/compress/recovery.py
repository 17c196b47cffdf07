"""Settings of a recovery."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from ingle.compress.calibration import CalibrationSettings, make_rows
from ingle.core.config import Count, check_bounds, from_table
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.measure.data_sets import Text
from ingle.model.module import CausalLM
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, corpus_of
from ingle.train.example_files import Document
from ingle.train.forward import final_states
from ingle.train.loop import train_for
from ingle.train.loop_settings import Schedule, TrainReport, TrainSettings
from ingle.train.making import DeltaJob, taught_nothing
from ingle.train.objectives import Distillation, Predictions
from ingle.train.optimisers import DTYPES, OptimiserSettings, choose
from ingle.train.packing import Data, make_batch


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """How a changed model learns to follow the original."""

    # Minutes of training; 0 = none. The number of steps follows from the speed at the beginning.
    minutes: float = 0.0
    steps: int | None = None  # number of steps, instead of minutes
    learning_rate: float = 1e-3  # learning rate at its peak
    tokens: Count = 512  # tokens of each document
    batch_tokens: Count = 2048  # most tokens of a step
    held_out: Count = 16  # documents that are never learnt from
    seed: int = 0  # seed of texts and initial values

    def __post_init__(self) -> None:
        check_bounds(self, "recovery.")
        if self.minutes < 0 or (self.steps is not None and self.steps < 1):
            raise ConfigError("recovery.minutes, .steps", "must not be below 0 and 1", (self.minutes, self.steps))
        if self.batch_tokens < self.tokens:
            raise ConfigError("recovery.batch_tokens", f"must have room for a document of {self.tokens} tokens", self.batch_tokens)

    @property
    def wanted(self) -> bool:
        """Whether a recovery is asked for."""
        return self.steps is not None or self.minutes > 0


# Recovery: a changed model learns to follow the original. Loss: KL divergence from its predictions, on training parts of the text suites.
# The caller chooses the trained parameters: low-rank additions where parts were cut out (train/low_rank.py), scales and minima of blocks
# (grids.py).
#     FOLDER/length.json    number of steps, and number format
#     FOLDER/run/           the training, as `train` writes it


LENGTH = "length.json"
_TRIES = 3  # steps that are timed to find the number of all, after one to warm up


@dataclass(frozen=True, slots=True)
class Length:
    """Choices of the beginning that a continued run must keep."""

    steps: int
    precision: Literal["bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovery: the job that it is a part of, the original to follow, and the texts."""

    job: DeltaJob[Any]
    settings: RecoverySettings
    whole: CausalLM
    tokenizer: Tokenizer
    texts: Sequence[Text]

    def run(self, module: CausalLM, parameters: Mapping[str, nn.Parameter]) -> TrainReport:
        """Train these parameters of the changed model, in place, from where it was stopped. Casts both models.

        Raises ConfigError for too little text, TrainError, and Interrupted after Ctrl-C or SIGTERM.
        """
        job, folder = self.job, self.job.folder / "recovery"
        job.watch.pieces("preparing the recovery", 0, 1)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        length = settle(self.settings, module, self.whole, parameters, self._data(1), folder / LENGTH)
        data, objective = self._data(length.steps), Distillation(Predictions(self.whole), job.kept.digest)
        settings = train_settings(self.settings, length, data)
        done = train_for(job, module, parameters, data, settings, folder / "run", objective, "in the recovery")
        if nothing := taught_nothing(done, 0, "the recovery"):
            job.watch.say(nothing)
        return done

    def _data(self, steps: int) -> Data:
        return make_data(self.tokenizer, self.texts, self.settings, steps, self.whole.config.context_length)


def make_data(tokenizer: Tokenizer, texts: Sequence[Text], settings: RecoverySettings, steps: int, context: int) -> Data:
    """Make documents for so many steps, or as many as the texts give, and held-out ones. Every token counts but the first.

    Raises ConfigError for too little text.
    """
    each = _each(settings)
    needed = settings.held_out + steps * each
    try:
        rows = make_rows(tokenizer, texts, CalibrationSettings(needed, settings.tokens, seed=settings.seed + 1), context)
    except ConfigError:  # fewer, read more than once
        have = sum(len(tokenizer.encode(f"{text.text}\n\n")) for text in texts) // min(settings.tokens, context)
        if have <= settings.held_out + each:
            raise
        rows = make_rows(tokenizer, texts, CalibrationSettings(have, settings.tokens, seed=settings.seed + 1), context)
    counted = np.arange(rows.shape[1]) > 0
    corpus: Corpus = corpus_of("answers", [(str(i), -1, (Document(row.numpy().astype(np.int32), counted),)) for i, row in enumerate(rows)])
    return Data(corpus, range(settings.held_out, len(corpus)), range(settings.held_out))


def train_settings(settings: RecoverySettings, length: Length, data: Data) -> TrainSettings:
    """Settings of a run of so many steps."""
    each, steps = _each(settings), length.steps
    epochs = -(-steps // max(1, len(data.train) // each)) + 1
    optimiser = OptimiserSettings(learning_rate=settings.learning_rate)
    return TrainSettings(
        epochs=epochs, max_steps=steps, batch_tokens=settings.batch_tokens, optimiser=optimiser, seed=settings.seed,
        precision=length.precision, schedule=Schedule("cosine", warm_up=0.05), evaluate_every=max(25, steps // 8), checkpoint_minutes=5.0,
    )  # fmt: skip


def settle(
    settings: RecoverySettings, module: CausalLM, whole: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, path: Path
) -> Length:
    """Settle how many steps the minutes are worth, and the number format: measured once and kept in `path`.

    Casts both modules as training will; trained parameters stay as they are.
    """
    length = from_table(Length, json.loads(path.read_bytes())) if path.exists() else None
    precision = choose("auto", module.lm_head.weight.device) if length is None else length.precision
    for one, trained in ((module, parameters), (whole, {})):
        for name, parameter in one.named_parameters():
            parameter.requires_grad_(name in trained)
            if name not in trained:
                parameter.data = parameter.data.to(DTYPES[precision])
    if length is None:
        steps = settings.steps or max(1, round(60 * settings.minutes / _seconds_of_a_step(settings, module, whole, parameters, data)))
        length = Length(steps, precision)
        write_atomic(path, json.dumps(asdict(length)).encode(), mode=0o600)
    return length


def _seconds_of_a_step(
    settings: RecoverySettings, module: CausalLM, whole: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data
) -> float:
    before, seconds = {name: parameter.data for name, parameter in parameters.items()}, list[float]()
    objective, batch = Distillation(Predictions(whole), ""), make_batch(data.corpus, list(data.train[: _each(settings)]))
    for parameter in parameters.values():
        parameter.data = parameter.data.to(module.lm_head.weight.dtype)
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        objective(module, lambda: final_states(module, batch), batch).total.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
    for name, parameter in parameters.items():
        parameter.grad, parameter.data = None, before[name]
    return sum(seconds[1:]) / _TRIES


def _each(settings: RecoverySettings) -> int:
    """Documents of a step."""
    return max(1, settings.batch_tokens // settings.tokens)
