"""Settings: TOML and `--set a.b=c` into frozen dataclasses. Unknown keys and wrong types are errors with the expected ones."""

import copy
import dataclasses
import json
import math
import operator
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from ingle.core import registry
from ingle.core.errors import ConfigError

T = TypeVar("T")


def load_config(cls: type[T], path: Path | None, overrides: Iterable[str] = ()) -> T:
    """Return a `cls` from a TOML file (None = all defaults) with `key.sub=value` overrides on top.

    Raises ConfigError for an unreadable file, unknown keys, wrong types, and whatever `cls` itself refuses.
    """
    return from_table(cls, read_table(path, overrides))


def read_table(path: Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return the plain table of a TOML file (None = empty) with `key.sub=value` overrides on top. Raises ConfigError."""
    return with_overrides(_read_toml(path) if path else {}, overrides)


def with_overrides(table: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a plain table with `key.sub=value` on top. Raises ConfigError for an override in another form."""
    changed: dict[str, Any] = copy.deepcopy(dict(table))
    for override in overrides:
        _set(changed, override)
    return changed


def assignments(given: Mapping[str, Any], overrides: Iterable[str] | None) -> list[str]:
    """Return overrides for a command's own options (None = option not used), followed by those of `--set`."""
    return [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None] + list(overrides or ())


def overrides_of(table: Mapping[str, Any], where: str = "") -> list[str]:
    """Return the overrides that build this plain table from nothing: one `key.sub=value` for each value."""
    overrides = list[str]()
    for key, value in table.items():
        overrides += overrides_of(value, f"{where}{key}.") if isinstance(value, Mapping) else [f"{where}{key}={json.dumps(value)}"]
    return overrides


def from_table(cls: type[T], table: Mapping[str, Any], where: str = "", default: T | None = None) -> T:
    """Build a dataclass from a plain table, by field name and type, nested dataclasses and tuples included.

    Where the table says nothing, `default` holds: for a nested dataclass that is the default of its field, not that of its class.
    """
    assert dataclasses.is_dataclass(cls), f"{cls} is not a dataclass"
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in table:
        if key not in fields:
            raise ConfigError(where + key, "is not a known key", "", registry.did_you_mean(key, sorted(fields)))
    defaults = {name: _default(spec) if default is None else getattr(default, name) for name, spec in fields.items()}
    for name, value in defaults.items():
        if value is dataclasses.MISSING and name not in table:
            raise ConfigError(where + name, "is required", "nothing")
    settings = {key: _convert(hints[key], value, where + key, defaults[key]) for key, value in table.items()}
    return cls(**(defaults | settings))


def _default(spec: "dataclasses.Field[Any]") -> Any:
    return spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """Numbers that a setting may be, within its type: `Annotated[int, Bounds(ge=1)]`. None = no such bound."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Return whether a number is within them; not a number is not."""
        return all(
            bound is None or holds(value, bound)
            for bound, holds in ((self.ge, operator.ge), (self.gt, operator.gt), (self.le, operator.le), (self.lt, operator.lt))
        )

    @property
    def rule(self) -> str:
        """The rule, as an error says it."""
        if self.ge is not None and self.le is not None:
            return f"must be between {self.ge:,} and {self.le:,}"
        if self == Bounds(ge=0):
            return "must not be negative"
        parts = (("at least", self.ge), ("above", self.gt), ("below", self.lt), ("at most", self.le))
        return "must be " + " and ".join(f"{word} {bound:,}" for word, bound in parts if bound is not None)


Count = Annotated[int, Bounds(ge=1)]  # a number of things of which there is one at least
Amount = Annotated[int, Bounds(ge=0)]  # a number of things of which there may be none
Positive = Annotated[float, Bounds(gt=0)]
NotNegative = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, le=1)]  # a share that may be all
Part = Annotated[float, Bounds(ge=0, lt=1)]  # a share that leaves something


@cache
def _bounds(cls: type) -> dict[str, Bounds]:
    found = {}
    for base in reversed(cls.__mro__):  # a subclass that names a field again keeps its bounds
        for name, hint in typing.get_type_hints(base, include_extras=True).items():
            for one in (hint, *typing.get_args(hint)):  # also behind `| None`
                for bounds in getattr(one, "__metadata__", ()):
                    if isinstance(bounds, Bounds):
                        found[name] = bounds
    return found


def check_bounds(settings: object, where: str = "") -> None:
    """Check the numbers of a dataclass by the bounds in their types. `where`: what stands before their names. Raises ConfigError."""
    for name, bounds in _bounds(type(settings)).items():  # type: ignore[arg-type]
        value = getattr(settings, name)
        if value is not None and not bounds.hold(value):
            raise ConfigError(where + name, bounds.rule, value)


def check_seed(field: str, seed: int) -> None:
    """Raise ConfigError for a seed that random generators don't take."""
    if not 0 <= seed < 2**63:
        raise ConfigError(field, "must be at least 0 and below 2⁶³", seed)


def to_table(value: object) -> Any:
    """Return the plain table that `from_table` reads back: dataclasses become dicts, tuples lists, and None is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_table(item) for name, item in pairs if item is not None}
    if isinstance(value, tuple | list):
        return [to_table(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_table(item) for key, item in value.items()}
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), "must be readable", error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "must be valid TOML", error) from error


def _set(table: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError("--set", "must look like key.sub=value", override)
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string, so that quoting twice is not needed on a command line
    *path, last = key.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(key, f"In {override}, {part} is a value and has no keys below it")
    table[last] = value


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(hint, value, where + ".", default if isinstance(default, hint) else None)  # type: ignore[arg-type]
    if origin is typing.Literal and value in args:
        return value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in args if option is not type(None)]
        if len(options) == 1 and value is not None:
            return _convert(options[0], value, where, default)
        for option in options:
            try:
                return _convert(option, value, where, default)
            except ConfigError:
                continue
    if origin is tuple and isinstance(value, list | tuple):
        items = args[:1] * len(value) if args[1:] == (Ellipsis,) else args
        if len(items) == len(value):
            return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))
    if hint is Any:
        return value
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is None and isinstance(hint, type):
        if hint is float and type(value) is int:
            return float(value)
        if hint is Path and isinstance(value, str | Path):
            return Path(value)
        if type(value) is hint and (not isinstance(value, float) or math.isfinite(value)):
            return value
    expected = " or ".join(map(repr, args)) if origin is typing.Literal else getattr(hint, "__name__", None) or str(hint)
    raise ConfigError(where, f"must be {expected}", repr(value))
