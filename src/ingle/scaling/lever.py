"""The contract of a lever: one way to spend the next unit of compute. To add one, put a file into scaling/levers, named after it.

The file holds `LEVER`. A training lever changes the settings of a sweep, and nothing else: so the sweep's own runner can try it on the same
held-out text. A command lever is an `ingle` command that makes a model of another one; that model is read on the same text.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ingle.core.config import to_table
from ingle.core.errors import ConfigError
from ingle.scaling.sweep_settings import SweepSettings

Changes = Callable[[SweepSettings], Sequence[SweepSettings]]


def unchanged(settings: SweepSettings) -> Sequence[SweepSettings]:
    """Return the settings as they are: the law of the sweep alone says what such a lever gives."""
    return (settings,)


@dataclass(frozen=True, slots=True)
class TrainingLever:
    """A way to train another model."""

    words: str
    """The act, for people: `train another size`."""
    changes: Changes = unchanged
    """Settings to try instead of the sweep's; none where it can't be done there."""
    sizes: Literal["all", "same", "others"] = "all"
    """Sizes that may be chosen: that of the best model, the others, or any."""

    @property
    def needs_probe(self) -> bool:
        """Whether the sweep's own runs say nothing of it."""
        return self.changes is not unchanged


@dataclass(frozen=True, slots=True)
class Errand:
    """The details that the command of a lever needs."""

    sweep: str
    sources: tuple[str, ...]
    """Texts of the sweep."""
    minutes: float
    """How long it may train."""


@dataclass(frozen=True, slots=True)
class CommandLever:
    """A way to make a better model of one that is kept."""

    words: str
    start: str
    """The model that it begins with."""
    arguments: Callable[[Errand], tuple[str, ...]]
    """Arguments of `ingle`."""
    made: Callable[[Errand], str]
    """Name of the model that the command makes."""
    tells: str
    """Its other use, beside the loss, as a sentence."""


Lever = TrainingLever | CommandLever


def levers() -> Mapping[str, Lever]:
    """Return every lever by name, alphabetically."""
    import ingle.scaling.levers as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return {name: importlib.import_module(f"ingle.scaling.levers.{name}").LEVER for name in names}


def chosen(names: Sequence[str]) -> dict[str, Lever]:
    """Return the levers of these names; without names, all. Raises ConfigError with the known ones."""
    known = levers()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError("LEVER", "is not known", name, f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}.")
    return {name: known[name] for name in names or known}


def difference(before: SweepSettings, after: SweepSettings) -> dict[str, Any]:
    """Return the settings that differ, as a plain table: it names a change."""
    old, new = to_table(before), to_table(after)
    return {name: value for name, value in new.items() if old[name] != value}
