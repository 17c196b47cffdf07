"""The guards of this folder. A guard is one file with NAME, ORDER, MODES, EDITS, HOLDS_BACK and `make`; nothing else lists it.

If a policy may say more of it than a mode, the file names these fields in TAKES; if they can be wrong, `check` raises ConfigError.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ingle.safety
from ingle.core.config import read_table, with_overrides
from ingle.core.errors import ConfigError
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Guard, GuardLayer
from ingle.safety.policy import TABLE, USUAL, GuardPolicy, GuardRule, KnownGuard, Mode, read_policy, rule_of


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
    """Most characters of an answer that it may hold back, beside the piece that it was given last."""
    make: Callable[[RequestLimits, GuardRule], Guard]
    """Makes the guard for one model, by a rule whose mode is not `off`."""
    takes: tuple[str, ...] = ()
    """Choices of a policy beside its mode: fields of `GuardRule`."""
    check: Callable[[GuardRule], object] | None = None
    """Raises ConfigError for a rule that the guard can't follow."""


def guard_files() -> tuple[GuardFile, ...]:
    """Return every guard, the outermost first."""
    names = [module.name for module in pkgutil.iter_modules(ingle.safety.__path__)]
    modules = [importlib.import_module(f"ingle.safety.{name}") for name in names]
    return tuple(sorted((_file(module) for module in modules if hasattr(module, "make")), key=lambda file: file.order))


def guard_policy(path: Path, overrides: Iterable[str] = ()) -> GuardPolicy:
    """Return the guard policy of a policy.toml with overrides (`output=block`) on top; the usual one if the file or its table is missing.

    Raises ConfigError for a file that can't be read, for unknown guards, modes and fields, and for rules that a guard can't follow.
    """
    table = read_table(path).get(TABLE, {}) if path.exists() else {}
    if isinstance(table, Mapping):
        table = with_overrides(table, [one.removeprefix(f"{TABLE}.") for one in overrides])
    files = {file.name: file for file in guard_files()}
    policy = read_policy(table, {name: KnownGuard(file.modes, file.takes) for name, file in files.items()}, path.parent)
    for rules in policy.tables.values():
        for name, rule in rules.items():
            try:
                if (check := files[name].check) is not None:
                    check(rule)
            except ConfigError as error:
                raise ConfigError(f"{TABLE}.{name}.{error.field}", error.rule, error.got, error.cure) from error
    return replace(policy, judge=judge_file(path.parent))


def judge_file(home: Path) -> Path:
    """Return where a home's own judge lies, if it has one."""
    return home / "guards" / "judge.safetensors"


def make_guards(limits: RequestLimits, policy: GuardPolicy = USUAL, model: str = "", key: str = "") -> tuple[GuardLayer, ...]:
    """Return every guard that is not off, the outermost first, for `middleware.wrap`.

    `model`, `key`: names for which a policy may say something else.
    """
    rules = policy.rules(model, key)
    made = [(file, replace(rule_of(rules, file.name, file.modes), judge=policy.judge)) for file in guard_files()]
    return tuple(GuardLayer(file.name, file.make(limits, rule), rule.mode) for file, rule in made if rule.mode != "off")


def _file(module: Any) -> GuardFile:
    takes, check = getattr(module, "TAKES", ()), getattr(module, "check", None)
    return GuardFile(module.NAME, module.ORDER, module.MODES, module.EDITS, module.HOLDS_BACK, module.make, takes, check)
