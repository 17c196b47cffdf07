"""The contract of a check. To add one, put a file into gate/checks: its name is the check's name, its first line its title.

The file holds `Limits`, a frozen dataclass with a default for every field, and `check`, as in `Check` below. Makers of candidates that
need other limits than the defaults name them in their entries (core/makers.py).
"""

from typing import Any, Protocol

from ingle.core import registry
from ingle.gate.finding import Finding
from ingle.gate.trial import Trial

CHECKS = "ingle.gate.checks"


class Check(Protocol):
    """A module of `gate.checks`."""

    # Limits of the check, a frozen dataclass. Its first field is `on`: whether the check is run.
    Limits: type[Any]

    def check(self, trial: Trial, limits: Any) -> Finding | None:
        """Measure the candidate against the incumbent. None where the check does not apply, e.g. because it got no questions.

        Raises the errors of asking the models, and Interrupted.
        """
        ...


def names() -> list[str]:
    """Names of all checks, in the order in which they are run: alphabetically."""
    return registry.names(CHECKS)


def find_check(name: str) -> Check:
    """Return the check of that name. Raises ConfigError with the known ones."""
    check: Check = registry.find(CHECKS, name, "policy", f"There is no check {name}", "")
    return check
