"""A folder is a registry: a file there is an entry, the file's name is the entry's, and its first docstring line is the entry's title.

Folders are named as packages are: `ingle.tuning.methods`. A package may have several folders (`__path__`): files of a plug-in count, too.
"""

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ingle.core.errors import ConfigError


def names(folder: str) -> list[str]:
    """Return the names of all entries, alphabetically."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(folder).__path__))


def find(folder: str, name: str, field: str, rule: str = "", got: str | None = None) -> Any:
    """Return the module of an entry. Raises ConfigError for another name: see `check_known`."""
    check_known(name, names(folder), field, rule, got)
    return importlib.import_module(f"{folder}.{name}")


def modules(folder: str) -> Mapping[str, Any]:
    """Return the modules of all entries by name, alphabetically."""
    return _modules(folder, tuple(importlib.import_module(folder).__path__))


def titles(folder: str) -> dict[str, str]:
    """Return every entry with its title, read as text, because importing PyTorch takes seconds."""
    return {name: _title(f"{folder}.{name}") for name in names(folder)}


def check_known(name: str, known: Iterable[str], field: str, rule: str = "", got: str | None = None) -> None:
    """Raises ConfigError for a name that is not known, with the nearest one as its cure; without a rule, with all as its rule.

    `got`: the value that the error names, where that is not the name.
    """
    known = list(known)
    if name not in known:
        said = (rule, did_you_mean(name, known)) if rule else (f"must be one of {', '.join(known)}", "")
        raise ConfigError(field, said[0], name if got is None else got, said[1])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the cure for a name that is not known: the nearest one, or else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known) or 'none'}."


@lru_cache(maxsize=32)
def _modules(folder: str, _path: tuple[str, ...]) -> Mapping[str, Any]:
    """Read a folder once for each search path."""
    return MappingProxyType({name: importlib.import_module(f"{folder}.{name}") for name in names(folder)})


def _title(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or "").split("\n")[0]
