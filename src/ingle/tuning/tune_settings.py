"""Settings of a tuning run: method, layers, data, training, and how its result is judged."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from ingle.core.config import Amount, Bounds, NotNegative, Share, check_bounds, from_table, to_table, with_overrides
from ingle.core.errors import ConfigError
from ingle.train.corpus import DataSettings, KeptSettings
from ingle.train.loop_settings import NO_MATTER, TrainSettings
from ingle.train.objectives import HoldSettings
from ingle.train.optimisers import Device
from ingle.train.packing import Data
from ingle.tuning.tuning_method import find_method

# Course of a run where the owner sets none: small data are read more often and in smaller batches, or nothing is learnt.


@dataclass(frozen=True, slots=True)
class SmallData:
    """Changes for data that give too few steps. They hold only where nothing else was set: `settings.settings_of` turns the rest off."""

    least_steps: Amount = 48  # fewest steps of a run; 0 = as many as its epochs give
    batch_tokens: Amount = 512  # tokens of a batch then, but at least those of the longest example; 0 = as `train.batch_tokens` says
    patience: Amount = 2  # epochs in a row that gain nothing after which the run stops and the best is kept; 0 = it goes on to its end
    least_gain: NotNegative = 0.02  # as `train.least_gain`

    def __post_init__(self) -> None:
        check_bounds(self, "small.")


def course_of(train: TrainSettings, small: SmallData, data: Data) -> TrainSettings:
    """Return the settings of the run on these data: `train`'s, or more epochs of smaller batches where there are few examples."""
    sizes = data.corpus.sizes
    tokens, longest = int(sizes[list(data.train)].sum()), int(sizes.max())
    if not small.least_steps or train.epochs * tokens >= small.least_steps * train.batch_tokens:
        return train
    batch = max(small.batch_tokens, longest) if small.batch_tokens else train.batch_tokens
    batch = min(batch, train.batch_tokens)
    epochs = max(train.epochs, math.ceil(small.least_steps / max(1, round(tokens / batch))))
    patience = train.patience or (small.patience if data.held_out else 0)
    return replace(train, batch_tokens=batch, epochs=epochs, patience=patience, least_gain=train.least_gain or small.least_gain)


def told(train: TrainSettings, course: TrainSettings, examples: int) -> str:
    """A sentence for the owner if the course differs from the settings; empty where it doesn't."""
    if course == train:
        return ""
    stops = ", or until little is left to learn" if course.patience else ""
    return f"{examples} examples are few, so they are read {course.epochs} times{stops} (--epochs sets another number)"


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Settings of the loss to lower."""

    # answers: their cross-entropy; distil: following another model's predictions there; or preferences, whose data are pairs (dpo, orpo) or
    # labels (kto).
    kind: Literal["answers", "distil", "dpo", "orpo", "kto"] = "answers"
    teacher: str = ""  # distil: the kept model to follow; it must split texts into the same tokens
    temperature: float = 1.0  # distil: temperature that softens both models' predictions
    data_share: Share = 0.0  # distil: share of the answers' cross-entropy in the loss, 0 to 1
    beta: float = 0.1  # how closely the model stays with its state before (dpo, kto); λ of orpo
    smoothing: float = 0.0  # dpo: the share of pairs that are probably the wrong way round

    def __post_init__(self) -> None:
        if (self.kind == "distil") != bool(self.teacher):
            cure = 'Give both, e.g. kind = "distil" and teacher = "smollm2", or neither.'
            raise ConfigError("objective.teacher", "is needed for distil, and for nothing else", repr(self.teacher), cure)
        if not 0 < self.beta < math.inf:
            raise ConfigError("objective.beta", "must be above 0, or rejected answers are learnt", self.beta)
        if not 0 < self.temperature < math.inf:
            raise ConfigError("objective.temperature", "must be above 0", self.temperature)
        check_bounds(self, "objective.")
        if not 0 <= self.smoothing < 0.5:
            raise ConfigError("objective.smoothing", "must be at least 0 and below 0.5, where pairs say nothing any more", self.smoothing)
        for one in fields(self):
            readers = _READ_BY.get(one.name, (self.kind,))
            if self.kind not in readers and getattr(self, one.name) != one.default:
                raise ConfigError(f"objective.{one.name}", f"is read by {', '.join(readers)} alone", f"kind {self.kind}", "Leave it out.")


# Settings that only some kinds of objective read.
_READ_BY = {"temperature": ("distil",), "data_share": ("distil",), "smoothing": ("dpo",), "beta": ("dpo", "orpo", "kto")}


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How the result is measured, before and after, as it is served."""

    forgetting: Amount = 30  # documents of general text whose bits per byte are measured; 0 = forgetting is not measured
    general: str = "wiki-bits"  # the suite of general text
    held_out: Amount = 50  # most held-out documents whose loss is measured; 0 = only training's own figure
    format: str = "auto"  # format of the weights when measured: auto, int4, int8, bf16, fp32
    threads: int | None = None  # threads to compute with; none = one for each usable core
    samples: Amount = 3  # held-out examples that the model answers before and after, for the report; 0 = none
    sample_tokens: Amount = 48  # most tokens of such an answer
    seed: Amount = 0  # seed of the intervals' resamples

    def __post_init__(self) -> None:
        check_bounds(self, "judge.")


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Settings of one tuning run. `settings_of` makes them and fills in what a method wants."""

    method: str = "lora"  # a file of `tuning.methods`
    # Settings of the method, by field of its `Settings`; the others keep their defaults.
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    layers: str = "all"  # layers to train: all, upper-third, upper-half, or numbers like 20-29
    max_examples: Amount = 0  # most examples that are used, chosen by a hash of their content; 0 = all
    data: DataSettings = field(default_factory=DataSettings)  # how files become examples
    train: TrainSettings = field(default_factory=TrainSettings)  # settings of the training run
    # Course of the run where the data are few and neither `train.epochs` nor `train.max_steps` is set.
    small: SmallData = field(default_factory=SmallData)
    hold: HoldSettings = field(default_factory=HoldSettings)  # settings of what stays as it is, for answers
    device: Device = "auto"  # device to train on: auto (cuda where it is there), cpu, cuda
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)  # the loss to lower
    judge: JudgeSettings = field(default_factory=JudgeSettings)  # how the result is measured
    # Share of what was trained that is kept, for LoRA and its kin: a candidate that the gate refuses may pass at less.
    strength: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    examples: KeptSettings = field(default_factory=KeptSettings)  # settings for the examples that are kept beside the delta

    def __post_init__(self) -> None:
        check_bounds(self)


def settings_of(given: Mapping[str, Any], overrides: Iterable[str] = ()) -> TuneSettings:
    """Make settings from a plain table and `key.sub=value` on top. They get the method's own learning rate where they have none.

    Given values are kept: with epochs or steps no run gets longer, with a share to hold out no more is held out.
    Raises ConfigError for unknown keys, methods and options, and values that can't be used.
    """
    table = with_overrides(given, overrides)
    settings = from_table(TuneSettings, table)
    method_settings(settings)
    train, small = table.get("train", {}), table.get("small", {})
    if settings.objective.kind != "answers" or ({"epochs", "max_steps"} & train.keys() and "least_steps" not in small):
        settings = replace(settings, small=replace(settings.small, least_steps=0))
    if "batch_tokens" in train and "batch_tokens" not in small:
        settings = replace(settings, small=replace(settings.small, batch_tokens=0))
    if "held_out" in table.get("data", {}) and "least_held_out" not in table["data"]:
        settings = replace(settings, data=replace(settings.data, least_held_out=0))
    if "learning_rate" not in train.get("optimiser", {}):
        optimiser = replace(settings.train.optimiser, learning_rate=find_method(settings.method).RATE)
        settings = replace(settings, train=replace(settings.train, optimiser=optimiser))
    return settings


def method_settings(settings: TuneSettings) -> Any:
    """Make the method's `Settings`. Raises ConfigError for unknown options or values that the method refuses."""
    return from_table(find_method(settings.method).Settings, settings.options, "options.")


def plain(settings: TuneSettings, course_only: bool = False) -> dict[str, Any]:
    """The settings as a table, the method's included; `course_only` leaves out what the trained tensors don't depend on."""
    table: dict[str, Any] = to_table(settings)
    table["options"] = to_table(method_settings(settings))
    if course_only:
        del table["judge"], table["examples"], table["strength"]
        if not settings.small.least_steps:  # keys stay as they were before this setting existed
            del table["small"]
        if not settings.data.least_held_out:
            del table["data"]["least_held_out"]
        table["train"] = {key: value for key, value in table["train"].items() if key not in NO_MATTER}
    return table
