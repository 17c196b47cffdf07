"""The guards of this folder. A guard is one file with NAME, ORDER, MODES, EDITS, HOLDS_BACK and `make`; nothing else lists it."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ingle.safety
from ingle.core.config import read_table
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Guard, GuardLayer
from ingle.safety.policy import TABLE, USUAL, Mode, Policy, mode_of, read_policy


@dataclass(frozen=True, slots=True)
class GuardFile:
    """The contents of a guard's file."""

    name: str
    """Name of the file; it signs the guard's verdicts and errors."""
    order: int
    """Lower is further out: it sees the request earlier and the answer later."""
    modes: tuple[Mode, ...]
    """Modes that a policy may set, the usual first. A guard without `off` can't be turned off."""
    edits: bool
    """Whether it may change the request or the answer, which it then reports in a verdict."""
    holds_back: int
    """Most chunks of an answer that it may hold back."""
    make: Callable[[RequestLimits, Mode], Guard]
    """Makes the guard for one model, in a mode other than `off`."""


def guard_files() -> tuple[GuardFile, ...]:
    """Return every guard, the outermost first."""
    names = [module.name for module in pkgutil.iter_modules(ingle.safety.__path__)]
    modules = [importlib.import_module(f"ingle.safety.{name}") for name in names]
    return tuple(sorted((_file(module) for module in modules if hasattr(module, "make")), key=lambda file: file.order))


def guard_policy(path: Path) -> Policy:
    """Return the guard policy of a policy.toml; the usual one if the file or its table is missing.

    Raises ConfigError for a file that can't be read, and for unknown guards and modes.
    """
    table = read_table(path).get(TABLE, {}) if path.exists() else {}
    return read_policy(table, {file.name: file.modes for file in guard_files()})


def make_guards(limits: RequestLimits, policy: Policy = USUAL) -> tuple[GuardLayer, ...]:
    """Return every guard of a model that is not off, the outermost first, for `middleware.wrap`."""
    modes = [(file, mode_of(policy, file.name, file.modes)) for file in guard_files()]
    return tuple(GuardLayer(file.name, file.make(limits, mode)) for file, mode in modes if mode != "off")


def _file(module: Any) -> GuardFile:
    return GuardFile(module.NAME, module.ORDER, module.MODES, module.EDITS, module.HOLDS_BACK, module.make)
