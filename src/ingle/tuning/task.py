"""A recipe from its first line to its last figure: tune as it says, then measure on its own task beside the model before."""

from collections.abc import Callable, Iterator
from typing import Any

from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.measuring import Options, SuiteResult, run_suite
from ingle.measure.suites import find_suite
from ingle.train.making import RunWatch
from ingle.tuning.judge import progress_of
from ingle.tuning.kept_model import subject_of
from ingle.tuning.recipe import Recipe

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
