"""The contract of a check. To add one, put a file into gate/checks: its name is the check's name, its first line its title.

The file holds `Limits`, a frozen dataclass with a default for every field, and `check`, as in `Check` below. Makers of candidates that
need other limits than the defaults name them in their own files (core/makers).
"""

import difflib
import importlib
import pkgutil
from typing import Any, Protocol

from ingle.core.errors import ConfigError
from ingle.gate.finding import Finding
from ingle.gate.trial import Trial


class Check(Protocol):
    """A module of `gate.checks`."""

    Limits: type[Any]
    """Limits of the check, a frozen dataclass. Its first field is `on`: whether the check is run."""

    def check(self, trial: Trial, limits: Any) -> Finding | None:
        """Measure the candidate against the incumbent. None where the check does not apply, e.g. because it got no questions.

        Raises the errors of asking the models, and Interrupted.
        """
        ...


def names() -> list[str]:
    """Names of all checks, in the order in which they are run: alphabetically."""
    import ingle.gate.checks as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def find_check(name: str) -> Check:
    """Return the check of that name. Raises ConfigError with the known ones."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            "policy", f"There is no check {name}", "", f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
        )
    module: Any = importlib.import_module(f"ingle.gate.checks.{name}")
    check: Check = module
    return check


def title(name: str) -> str:
    """Title of a check, one line."""
    return (importlib.import_module(f"ingle.gate.checks.{name}").__doc__ or "").split("\n")[0]
