"""The guards of this folder. A guard is one file with NAME, ORDER and `make(limits)`; nothing else lists it."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import ingle.safety
from ingle.safety.limits import Limits
from ingle.safety.onion import Guard


@dataclass(frozen=True, slots=True)
class GuardFile:
    """What a guard's file says of itself."""

    name: str
    """What its verdicts are signed with; the name of the file."""
    order: int
    """Lower is further out: it sees the request earlier and the answer later."""
    make: Callable[[Limits], Guard]


def guard_files() -> tuple[GuardFile, ...]:
    """Every guard, the outermost first."""
    names = [module.name for module in pkgutil.iter_modules(ingle.safety.__path__)]
    modules = [importlib.import_module(f"ingle.safety.{name}") for name in names]
    found = [GuardFile(module.NAME, module.ORDER, module.make) for module in modules if hasattr(module, "make")]
    return tuple(sorted(found, key=lambda file: file.order))


def make_guards(limits: Limits) -> tuple[Guard, ...]:
    """Every guard of one model, the outermost first: what `onion.wrap` takes."""
    return tuple(file.make(limits) for file in guard_files())
