"""The guards of this folder. A guard is one file with NAME, ORDER, MODES, EDITS, HOLDS_BACK and `make`; nothing else lists it."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ingle.safety
from ingle.core.config import read_table
from ingle.safety.limits import Limits
from ingle.safety.middleware import Guard, Layer
from ingle.safety.policy import TABLE, USUAL, Mode, Policy, mode_of, read_policy


@dataclass(frozen=True, slots=True)
class GuardFile:
    """What a guard's file says of itself."""

    name: str
    """What its verdicts and errors are signed with; the name of the file."""
    order: int
    """Lower is further out: it sees the request earlier and the answer later."""
    modes: tuple[Mode, ...]
    """What a policy may ask of it, the usual first. One without `off` can't be turned off."""
    edits: bool
    """Whether it may change the request or the answer. One that does says so in a verdict."""
    holds_back: int
    """How many chunks of an answer it may keep to itself before it passes them on."""
    make: Callable[[Limits, Mode], Guard]
    """The guard for one model, in a mode of its own that is not `off`."""


def guard_files() -> tuple[GuardFile, ...]:
    """Every guard, the outermost first."""
    names = [module.name for module in pkgutil.iter_modules(ingle.safety.__path__)]
    modules = [importlib.import_module(f"ingle.safety.{name}") for name in names]
    return tuple(sorted((_file(module) for module in modules if hasattr(module, "make")), key=lambda file: file.order))


def guard_policy(path: Path) -> Policy:
    """The policy that a home's policy.toml says; the usual one where there is no such file, or nothing of guards in it.

    Raises ConfigError for a file that can't be read, and for guards and modes that are not known.
    """
    table = read_table(path).get(TABLE, {}) if path.exists() else {}
    return read_policy(table, {file.name: file.modes for file in guard_files()})


def make_guards(limits: Limits, policy: Policy = USUAL) -> tuple[Layer, ...]:
    """Every guard of one model that is not off, the outermost first: what `middleware.wrap` takes."""
    modes = [(file, mode_of(policy, file.name, file.modes)) for file in guard_files()]
    return tuple(Layer(file.name, file.make(limits, mode)) for file, mode in modes if mode != "off")


def _file(module: Any) -> GuardFile:
    return GuardFile(module.NAME, module.ORDER, module.MODES, module.EDITS, module.HOLDS_BACK, module.make)
