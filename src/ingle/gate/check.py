"""The policy: which checks are run, and their limits. HOME/policy.toml, on top of the checks' own defaults.

Three tables of the file are about other things: `safety.policy` reads [guards], `home.owner` reads [use] and [retention].

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
from typing import Any

from ingle.core.config import from_table, read_table, to_table, with_overrides
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.makers import find_maker, gated_makers
from ingle.gate.check import find_check, names
from ingle.home.owner import TABLES as OWNER
from ingle.home.place import Home
from ingle.safety.policy import TABLE as GUARDS


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
