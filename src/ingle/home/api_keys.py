"""API keys of the server's users: shown once, stored as a hash, and refused as soon as they are revoked."""

import hmac
import re
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, NotKept
from ingle.home.database import Migrations, now, writing

if TYPE_CHECKING:
    from sqlalchemy import Engine, Row

# The room "api_keys": (number, statements), oldest first.
MIGRATIONS: Migrations = (
    (
        1,
        (
            """
            CREATE TABLE api_keys (
                id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, created TEXT NOT NULL, revoked TEXT,
                requests_per_minute INTEGER
            )""",
            "CREATE UNIQUE INDEX api_keys_live_name ON api_keys (name) WHERE revoked IS NULL",
        ),
    ),
    (2, ("ALTER TABLE api_keys ADD COLUMN metrics INTEGER NOT NULL DEFAULT 0",)),
    (3, ("ALTER TABLE api_keys ADD COLUMN guards INTEGER NOT NULL DEFAULT 0",)),
)

PREFIX = "ingle-"  # every secret begins with it, which tells it from other services' keys
MAX_RATE = 1_000_000
_COLUMNS = "id, name, created, revoked, requests_per_minute, metrics, guards"
_ID = re.compile(r"key-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Public facts about a key, without its secret."""

    id: str  # public: it stands in the ledger and with everything that the key's user keeps
    # Its owner or purpose. Two keys may share a name only if one of them is revoked.
    name: str
    created: str  # UTC, ISO 8601
    revoked: str | None  # when it was revoked; None = it is valid
    requests_per_minute: int | None  # its own limit; None = the server's
    metrics: bool = False  # whether it may read the figures of the whole server (`/metrics`)
    guards: bool = False  # whether it may teach the guards, which then judge everybody's requests otherwise


def add_key(
    engine: "Engine", name: str, requests_per_minute: int | None = None, metrics: bool = False, guards: bool = False,
    tell: Callable[[ApiKey, str], object] = lambda _key, _secret: None,
) -> tuple[ApiKey, str]:  # fmt: skip
    """Make a key; return it with its secret: `ingle-` and 43 characters, which are shown once and can't be recovered.

    `tell` gets both before the key is good; if it raises, there is no key. Raises ConfigError if the name can't be used or a valid key has
    it, or the rate is out of range.
    """
    import sqlalchemy as sa

    if not (0 < len(name) <= 100 and name.isprintable() and name == name.strip()) or _ID.fullmatch(name):
        rule = "must be 1 to 100 printable characters, with no space at either end, and not look like a key's id"
        raise ConfigError("name", rule, repr(name)[:120], "Choose another name.")
    if requests_per_minute is not None and not 1 <= requests_per_minute <= MAX_RATE:
        raise ConfigError("requests_per_minute", f"must be between 1 and {MAX_RATE}", requests_per_minute)
    key = ApiKey(f"key-{secrets.token_hex(6)}", name, now(), None, requests_per_minute, metrics, guards)
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    row = {"id": key.id, "name": name, "hash": key_hash(secret), "created": key.created, "rate": requests_per_minute}
    names = "id, name, hash, created, requests_per_minute, metrics, guards"
    insert = f"INSERT INTO api_keys ({names}) VALUES (:id, :name, :hash, :created, :rate, :metrics, :guards)"
    taken = ConfigError(
        "name", f"Another key is called {name} already", "",
        f"Choose another name, or revoke the old key first (`ingle home keys revoke {shlex.quote(name)}`).",
    )  # fmt: skip
    if any(other.name == name and other.revoked is None for other in list_keys(engine)):
        raise taken
    tell(key, secret)
    try:
        with writing(engine) as connection:
            connection.execute(sa.text(insert), row | {"metrics": int(metrics), "guards": int(guards)})
    except sa.exc.IntegrityError as error:
        raise taken from error  # somebody was quicker
    return key, secret


def list_keys(engine: "Engine") -> tuple[ApiKey, ...]:
    """Return every key ever made, the oldest first."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        return tuple(map(_key, connection.execute(sa.text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created, id"))))


def revoke_key(engine: "Engine", id_or_name: str) -> ApiKey:
    """Revoke a key from now on. Raises NotKept, with the valid keys, if none of them has this id or name."""
    import sqlalchemy as sa

    change = "UPDATE api_keys SET revoked = :now WHERE revoked IS NULL AND (id = :which OR name = :which) RETURNING "
    with writing(engine) as connection:
        row = connection.execute(sa.text(change + _COLUMNS), {"which": id_or_name, "now": now()}).first()
    if row is not None:
        return _key(row)
    good = [f"{key.name} ({key.id})" for key in list_keys(engine) if key.revoked is None]
    raise NotKept("key", f"This home has no key {id_or_name[:100]}", "", f"Good keys: {', '.join(good) or 'none'}.")


def check_key(engine: "Engine", secret: str) -> ApiKey | None:
    """Return the valid key with this secret, or None. Reads the database each time, so that a revoked key is out at once."""
    import sqlalchemy as sa

    hashed = key_hash(secret)
    query = sa.text(f"SELECT {_COLUMNS}, hash FROM api_keys WHERE hash = :hash AND revoked IS NULL")
    with engine.connect() as connection:
        row = connection.execute(query, {"hash": hashed}).first()
    # Finding the row by its hash takes a time that depends on how the hash of a guess begins, not the guess itself, and nobody can
    # choose hashes. The comparison in constant time leaves nothing to that argument.
    return _key(row) if row is not None and hmac.compare_digest(row.hash, hashed) else None


def key_hashes(engine: "Engine") -> dict[str, str]:
    """Return the hash of every key, by its id."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        return {str(id_): str(hashed) for id_, hashed in connection.execute(sa.text("SELECT id, hash FROM api_keys"))}


def any_keys(engine: "Engine") -> bool:
    """Return whether there is a valid key."""
    import sqlalchemy as sa

    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT 1 FROM api_keys WHERE revoked IS NULL LIMIT 1")).first() is not None


def key_hash(secret: str) -> str:
    """Return the hash of a key, which is all that is kept of it."""
    # One round of SHA-256: slow hashes protect passwords, which can be guessed. 256 random bits can't, however fast the hash is.
    return digest_bytes(secret.encode("utf-8", "surrogatepass"))


def _key(row: "Row[Any]") -> ApiKey:
    return ApiKey(row.id, row.name, row.created, row.revoked, row.requests_per_minute, bool(row.metrics), bool(row.guards))
