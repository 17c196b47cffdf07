"""The modes of guards: the table `[guards]` of HOME/policy.toml.

[guards]
control_tokens = "block"
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ingle.core.errors import ConfigError

Mode = Literal["off", "tell", "edit", "block"]
"""`off`: the guard is not used. `tell`: it reports its findings. `edit`: it removes them. `block`: it refuses the request, or ends the
answer."""
Policy = Mapping[str, Mode]
"""Modes by guard; the others keep their usual mode."""
USUAL: Policy = MappingProxyType({})
TABLE = "guards"
"""The table's name in the file."""


def mode_of(policy: Policy, guard: str, modes: tuple[Mode, ...]) -> Mode:
    """Return the mode of a guard whose modes are these, the usual one first."""
    return policy.get(guard, modes[0])


def read_policy(table: Any, known: Mapping[str, tuple[Mode, ...]]) -> Policy:
    """Return the policy in a table, given the known guards' modes. Raises ConfigError for other guards or modes."""
    if not isinstance(table, Mapping):
        raise ConfigError(TABLE, "must be a table", repr(table), 'For example [guards] with control_tokens = "block".')
    for name, mode in table.items():
        if name not in known:
            raise ConfigError(f"{TABLE}.{name}", "is not a guard", "", f"Known: {', '.join(known)}.")
        if mode not in known[name]:
            raise ConfigError(f"{TABLE}.{name}", f"must be one of {', '.join(known[name])}", repr(mode))
    return MappingProxyType(dict(table))
