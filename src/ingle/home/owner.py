"""The owner's statements in policy.toml: what the models here are for, what they must not be used for, and how long words are kept.

[use]
purpose = "Answers questions about our library."
users = "Members and staff"
forbidden = ["medical advice"]         # a topic of this name in [guards] enforces it
limits = "It does not know today's opening hours."
oversight = "Staff read what it told of every Monday."
contact = "library@example.org"
distribution = "Not distributed."

[retention]
answers_days = 90                      # conversations and stored answers that are older are deleted
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, read_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError

USE, RETENTION = "use", "retention"
TABLES = (USE, RETENTION)  # tables of policy.toml that are read here
_LONGEST = 2000
_MOST = 50


@dataclass(frozen=True, slots=True)
class OwnerUse:
    """The owner's words about the models. Nothing here is checked, so every card calls it stated."""

    purpose: str = ""  # their purpose
    users: str = ""  # who asks them
    forbidden: tuple[str, ...] = ()  # uses that are not allowed
    limits: str = ""  # known weaknesses
    oversight: str = ""  # who looks at what they do, and how
    contact: str = ""  # where somebody contests an answer, or reports harm
    distribution: str = ""  # how and since when the models are given to others

    def __post_init__(self) -> None:
        for field in fields(self):
            texts = getattr(self, field.name)
            for text in (texts,) if isinstance(texts, str) else texts:
                if len(text) > _LONGEST or not text.isprintable():
                    raise ConfigError(f"{USE}.{field.name}", f"must be plain text of at most {_LONGEST:,} characters", repr(text[:40]))
        if len(self.forbidden) > _MOST:
            raise ConfigError(f"{USE}.forbidden", f"must name at most {_MOST} uses", len(self.forbidden))
        said = {" ".join(text.lower().split()).rstrip(".") for text in self.forbidden}
        if len(said) < len(self.forbidden) or "" in said:
            raise ConfigError(f"{USE}.forbidden", "must name different uses", ", ".join(self.forbidden) or "an empty one")
        if " ".join(self.purpose.lower().split()).rstrip(".") in said:
            cure = "Say it in one of both."
            raise ConfigError(f"{USE}.forbidden", "can't forbid what the models are for", self.purpose, cure)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long words are kept."""

    answers_days: int = 0  # days after which conversations and stored answers are deleted; 0 = never

    def __post_init__(self) -> None:
        if not 0 <= self.answers_days <= 36500:
            raise ConfigError(f"{RETENTION}.answers_days", "must be between 0 (never) and 36,500", self.answers_days)


@dataclass(frozen=True, slots=True)
class OwnerPolicy:
    """Both tables."""

    use: OwnerUse
    retention: Retention

    @property
    def digest(self) -> str:
        """Digest of all that is stated."""
        return digest_json(to_table(self))


def owner_policy(path: Path) -> OwnerPolicy:
    """Return what the owner states in this file; nothing, if there is none. Raises ConfigError."""
    table = read_table(path) if path.exists() else {}
    return OwnerPolicy(_read(OwnerUse, table, USE), _read(Retention, table, RETENTION))


def _read(cls: type, table: Mapping[str, Any], name: str) -> Any:
    part = table.get(name, {})
    if not isinstance(part, Mapping):
        raise ConfigError(name, "must be a table", repr(part), f"For example [{name}].")
    return from_table(cls, part, f"{name}.")
