"""Recipes: a task in one TOML file, from the data to the final measurement. The folder `recipes/` holds three.

title = "sentiment of sentences"
model = "smollm2"
name = "sentiment"              # of the delta: MODEL+NAME
suite = "sst2"                  # its training part is learnt from

[tune]                          # as `ingle make tune --set`, see `tuning.tune_settings.TuneSettings`
method = "lora"
train = { epochs = 3 }

[measure]                       # on the part that is never learnt from
suite = "sst2"
shots = 8                       # of the base with examples in its prompt, which the delta is to beat

[forgetting]
suite = "wiki-bits"
items = 60
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.core.config import Amount, check_bounds, load_config
from ingle.core.errors import ConfigError
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import Kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.suites import find_suite, find_texts
from ingle.train.making import RunWatch
from ingle.tuning.comparison import progress_of
from ingle.tuning.data import SUITE
from ingle.tuning.kept_model import subject_of
from ingle.tuning.tune_settings import TuneSettings, settings_of
from ingle.tuning.tuning_method import find_method


@dataclass(frozen=True, slots=True)
class Measured:
    """A suite to measure on, before and after."""

    suite: str
    items: Amount = 0  # most of the held-out items; 0 = all
    shots: Amount = 0  # examples in the prompt of the untrained model that the delta is compared with

    def __post_init__(self) -> None:
        find_suite(self.suite)
        check_bounds(self)


@dataclass(frozen=True)
class Recipe:
    """One task: model, data, settings, and how to measure the result."""

    title: str
    model: str  # a kept model, with or without deltas
    name: str  # name of the new delta
    suite: str  # suite whose training part is learnt from
    measure: Measured  # how to measure the result
    forgetting: Measured  # general text to measure forgetting on
    tune: Mapping[str, Any] = field(default_factory=dict)  # settings as in `TuneSettings`
    # Learning rates on this task, by method, where they differ from the method's own; `bench/rates.py` finds them.
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name)
        find_suite(self.suite)
        find_texts(self.forgetting.suite, "forgetting.suite")
        for name, rate in self.rates.items():
            find_method(name)
            if type(rate) not in (int, float) or rate <= 0:
                raise ConfigError(f"rates.{name}", "must be a number above 0", rate)
        self.settings()

    @property
    def data(self) -> tuple[str, ...]:
        """Data for `tuning.tune.tune`."""
        return (SUITE + self.suite,)

    def settings(self, method: str | None = None) -> TuneSettings:
        """Return its settings; or those of another method on the same data and for as long, with that method's options and learning rate.

        Raises ConfigError for unknown keys and values that can't be used.
        """
        own = self.tune.get("method", TuneSettings().method)
        if method is None or method == own:
            return settings_of(self.tune, self._rate(own))
        train = dict(self.tune.get("train", {}))
        train["optimiser"] = {key: value for key, value in train.get("optimiser", {}).items() if key != "learning_rate"}
        others = {key: value for key, value in self.tune.items() if key != "options"}
        return settings_of({**others, "method": method, "train": train}, self._rate(method))

    def _rate(self, method: str) -> tuple[str, ...]:
        return (f"train.optimiser.learning_rate={self.rates[method]}",) if method in self.rates else ()


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from a TOML file, with `key.sub=value` on top. Raises ConfigError, and NotKept for unknown suites."""
    return load_config(Recipe, path, overrides)


# A recipe from its first line to its last figure: tune as it says, then measure on its own task beside the model before.


_ALL = 1 << 30


def table_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings for `settings_of`, with its measure of forgetting."""
    general = recipe.forgetting
    judge = {"forgetting": general.items or _ALL, "general": general.suite, **recipe.tune.get("judge", {})}
    return {**recipe.tune, "judge": judge}


def measure_task(
    home: Home, recipe: Recipe, before: Kept, after: Kept, watch: RunWatch, stopped: Callable[[], bool]
) -> Iterator[tuple[str, SuiteResult]]:
    """Yield (label, outcome) on the recipe's suite: the model before, the same with examples in its prompt, and after.

    Earlier results are used again. Raises the errors of `run_suite`.
    """
    suite, task = find_suite(recipe.measure.suite), recipe.measure
    rows = [(before.name, before, 0), (after.name, after, 0)]
    if task.shots:
        rows.insert(1, (f"{before.name}, {task.shots} examples in the prompt", before, task.shots))
    for label, kept, shots in rows:
        model = open_model(kept_source(home, kept), progress=watch.pieces)
        subject, options = subject_of(model, stopped), Options(task.items, shots)
        yield label, run_suite(home, suite, subject, options, progress_of(label, watch.pieces), watch.bytes)
