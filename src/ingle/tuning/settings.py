"""Settings of a tuning run: method, layers, data, training, and how its result is judged."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from ingle.core.config import from_table, to_table, with_overrides
from ingle.core.errors import ConfigError
from ingle.train.corpus import DataSettings
from ingle.train.holding import HoldSettings
from ingle.train.kept_examples import KeptSettings
from ingle.train.precision import Device
from ingle.train.settings import NO_MATTER, TrainSettings
from ingle.tuning.course import SmallData
from ingle.tuning.method import find_method


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Settings of the loss to lower."""

    kind: Literal["answers", "distil", "dpo", "orpo", "kto"] = "answers"
    """answers: their cross-entropy; distil: following another model's predictions there; or preferences, whose data are pairs (dpo, orpo)
    or labels (kto)."""
    teacher: str = ""
    """distil: the kept model to follow; it must split texts into the same tokens."""
    temperature: float = 1.0
    """distil: temperature that softens both models' predictions."""
    data_share: float = 0.0
    """distil: share of the answers' cross-entropy in the loss, 0 to 1."""
    beta: float = 0.1
    """How closely the model stays with its state before (dpo, kto); λ of orpo."""
    smoothing: float = 0.0
    """dpo: the share of pairs that are probably the wrong way round."""

    def __post_init__(self) -> None:
        if (self.kind == "distil") != bool(self.teacher):
            cure = 'Give both, e.g. kind = "distil" and teacher = "smollm2", or neither.'
            raise ConfigError("objective.teacher", "is needed for distil, and for nothing else", repr(self.teacher), cure)
        if not 0 < self.beta < math.inf:
            raise ConfigError("objective.beta", "must be above 0, or rejected answers are learnt", self.beta)
        if not 0 < self.temperature < math.inf:
            raise ConfigError("objective.temperature", "must be above 0", self.temperature)
        if not 0 <= self.data_share <= 1:
            raise ConfigError("objective.data_share", "must be between 0 and 1", self.data_share)
        if not 0 <= self.smoothing < 0.5:
            raise ConfigError("objective.smoothing", "must be at least 0 and below 0.5, where pairs say nothing any more", self.smoothing)
        for one in fields(self):
            readers = _READ_BY.get(one.name, (self.kind,))
            if self.kind not in readers and getattr(self, one.name) != one.default:
                raise ConfigError(f"objective.{one.name}", f"is read by {', '.join(readers)} alone", f"kind {self.kind}", "Leave it out.")


_READ_BY = {"temperature": ("distil",), "data_share": ("distil",), "smoothing": ("dpo",), "beta": ("dpo", "orpo", "kto")}
"""Settings that only some kinds of objective read."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How the result is measured, before and after, as it is served."""

    forgetting: int = 30
    """Documents of general text whose bits per byte are measured; 0 = forgetting is not measured."""
    general: str = "wiki-bits"
    """The suite of general text."""
    held_out: int = 50
    """Most held-out documents whose loss is measured; 0 = only training's own figure."""
    format: str = "auto"
    """Format of the weights when measured: auto, int4, int8, bf16, fp32."""
    threads: int | None = None
    """Threads to compute with; none = one for each usable core."""
    samples: int = 3
    """Held-out examples that the model answers before and after, for the report; 0 = none."""
    sample_tokens: int = 48
    """Most tokens of such an answer."""
    seed: int = 0
    """Seed of the intervals' resamples."""

    def __post_init__(self) -> None:
        for name in ("forgetting", "held_out", "samples", "sample_tokens", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"judge.{name}", "must not be negative", getattr(self, name))


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Settings of one tuning run. `settings_of` makes them and fills in what a method wants."""

    method: str = "lora"
    """A file of `tuning.methods`."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of the method, by field of its `Settings`; the others keep their defaults."""
    layers: str = "all"
    """Layers to train: all, upper-third, upper-half, or numbers like 20-29."""
    max_examples: int = 0
    """Most examples that are used, chosen by a hash of their content; 0 = all."""
    data: DataSettings = field(default_factory=DataSettings)
    """How files become examples."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """Settings of the training run."""
    small: SmallData = field(default_factory=SmallData)
    """Course of the run where the data are few and neither `train.epochs` nor `train.max_steps` is set."""
    hold: HoldSettings = field(default_factory=HoldSettings)
    """Settings of what stays as it is, for answers."""
    device: Device = "auto"
    """Device to train on: auto (cuda where it is there), cpu, cuda."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """The loss to lower."""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    """How the result is measured."""
    strength: float = 1.0
    """Share of what was trained that is kept, for LoRA and its kin: a candidate that the gate refuses may pass at less."""
    examples: KeptSettings = field(default_factory=KeptSettings)
    """Settings for the examples that are kept beside the delta."""

    def __post_init__(self) -> None:
        if self.max_examples < 0:
            raise ConfigError("max_examples", "must not be negative", self.max_examples)
        if not 0 < self.strength <= 1:
            raise ConfigError("strength", "must be above 0 and at most 1", self.strength)


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
