"""Checks: their contract, and the owner's policy, which says which of them are run and with which limits.

To add one, put a file into gate/checks: its name is the check's name, its first line its title. The file holds `Limits`, a frozen
dataclass with a default for every field, and `check`, as in `Check` below. Makers of candidates that need other limits than the defaults
name them in their entries (core/makers.py).

The policy is HOME/policy.toml, on top of the checks' own defaults. Three of its tables are about other things: `safety.policy` reads
[guards], `home.owner` reads [use] and [retention].

[bits]                   # for every maker of candidates
most_rise_percent = 2.0
[tune.bits]              # for one of them, on top
most_rise_percent = 5.0
[safety]
on = false
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from ingle.core import registry
from ingle.core.config import from_table, read_table, to_table, with_overrides
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.makers import find_maker, gated_makers
from ingle.gate.trial import Finding, Trial
from ingle.home.owner import TABLES as OWNER
from ingle.home.place import Home
from ingle.safety.policy import TABLE as GUARDS

CHECKS = "ingle.gate.checks"


class Check(Protocol):
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


@dataclass(frozen=True, slots=True)
class Policy:
    """An owner's limits for candidates. Made by `load_policy`, which refuses unknown checks."""

    table: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # content of the file, with overrides on top

    def limits(self, maker: str, check: str) -> Any:
        """Return the check's `Limits` for a maker's candidates: its defaults, then the maker's, the file's, and the file's for the maker.

        Raises ConfigError for keys and values that the check refuses.
        """
        module, values = find_check(check), dict[str, Any](find_maker(maker).limits.get(check, {}))
        for where, table in ((check, self.table.get(check, {})), (f"{maker}.{check}", self.table.get(maker, {}).get(check, {}))):
            if not isinstance(table, Mapping):
                raise ConfigError(f"policy {where}", "must be a table", repr(table), f"For example [{where}] with on = false.")
            values |= table
        return from_table(module.Limits, values, f"policy {check}.")

    def whole(self, maker: str) -> dict[str, Any]:
        """Return the limits of every check, as plain values. Raises ConfigError for a maker with unknown checks, and as `limits` does."""
        for check in find_maker(maker).limits:
            find_check(check)
        return {name: to_table(self.limits(maker, name)) for name in names()}

    def digest(self, maker: str) -> str:
        """Digest of all limits for that maker's candidates."""
        return digest_json(self.whole(maker))


def load_policy(home: Home, overrides: Iterable[str] = ()) -> Policy:
    """Read the home's policy, with `check.limit=value` or `maker.check.limit=value` on top.

    Raises ConfigError for a file that can't be read, unknown checks and makers, and values that a check refuses.
    """
    path = home.policy
    table = read_table(path if path.exists() else None)
    for others in (GUARDS, *OWNER):
        table.pop(others, None)
    policy, makers = Policy(with_overrides(table, overrides)), gated_makers()
    for key, value in policy.table.items():
        if key in makers:
            if not isinstance(value, Mapping):
                raise ConfigError(f"policy {key}", "must be a table of checks", repr(value), f"For example [{key}.bits].")
            for check in value:
                find_check(check)
        else:
            find_check(key)
    for maker in makers:
        policy.whole(maker)
    return policy
