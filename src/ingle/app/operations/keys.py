"""API keys of the server's users."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from ingle.app.house import House
from ingle.app.operation import About, Note, Nothing, Rows, Said, operation
from ingle.core.config import Bounds
from ingle.core.errors import IngleError, NotKept
from ingle.core.report import Event, Fact
from ingle.home.api_keys import MAX_RATE, ApiKey, add_key, key_hash, list_keys, revoke_key
from ingle.ledger.chain import Ledger


@dataclass(frozen=True, slots=True)
class KeyTold:
    """A key, without its secret."""

    id: str
    name: str
    created: str
    revoked: str | None
    requests_per_minute: int | None
    metrics: bool
    guards: bool


def _told(key: ApiKey) -> KeyTold:
    return KeyTold(key.id, key.name, key.created, key.revoked, key.requests_per_minute, key.metrics, key.guards)


@dataclass(frozen=True, slots=True)
class KeysTold:
    """All keys that there ever were, the oldest first."""

    object: str
    data: tuple[KeyTold, ...]


def _says_keys(found: KeysTold) -> Iterable[Said]:
    if not found.data:
        return (Note("There are no keys yet; `ingle home keys add NAME` makes one."),)
    rows = [
        (
            key.name, key.id, key.created[:10], str(key.requests_per_minute or "-"), "yes" if key.metrics else "-",
            "yes" if key.guards else "-", key.revoked[:10] if key.revoked else "-",
        )
        for key in found.data
    ]  # fmt: skip
    return (Rows(("NAME", "ID", "SINCE", "PER MINUTE", "METRICS", "GUARDS", "REVOKED"), rows),)


@operation("home keys list", right="owner", says=_says_keys)
def keys(house: House, _asked: Nothing) -> KeysTold:
    """List API keys.

    Examples:
        ingle home keys
        ingle home keys list --json
    """
    home = house.home
    there = bool(home.other_database) or home.database_file.exists()
    return KeysTold("list", tuple(map(_told, list_keys(house.engine))) if there else ())


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made."""

    name: Annotated[str, About("Whose key it is, or what for.", "NAME", placed=True)]
    requests_per_minute: Annotated[
        int | None, Bounds(ge=1, le=MAX_RATE), About("Most requests a minute; by default as the server says.", "N")
    ] = None
    metrics: Annotated[bool, About("It may read /metrics, the figures of the whole server.", also=("--metrics",))] = False
    guards: Annotated[bool, About("It may teach the guards of this home, which act for everybody.", also=("--guards",))] = False


@dataclass(frozen=True, slots=True)
class NewKeyTold(KeyTold):
    """A new key, with its secret."""

    key: str


def _says_new(new: NewKeyTold) -> Iterable[Said]:
    return new.key, Note(f"This is the key of {new.name} ({new.id}). It is shown this once; only its hash is kept.")


@operation("home keys add", right="owner", says=_says_new)
def add(house: House, asked: NewKey) -> NewKeyTold:
    """Make an API key.

    It is shown once, alone on standard output; this home keeps only its hash.

    Examples:
        ingle home keys add laptop
        ingle home keys add phone --requests-per-minute 30 > phone.key
        ingle home keys add prometheus --metrics   (may read the figures of the whole server, too)
        ingle home keys add me --guards            (may teach the guards, which act for everybody)
    """
    said = list[str]()

    def tell(key: ApiKey, secret: str) -> None:
        # Before the key is good: whatever fails or ends us after it, no key is good without a fact that says so.
        facts: dict[str, Fact] = {
            "name": key.name, "requests_per_minute": key.requests_per_minute, "metrics": key.metrics, "guards": key.guards,
            "sha256": key_hash(secret),
        }  # fmt: skip
        house.record(Event("key.add", key.id, facts))
        said.append(key.id)

    try:
        key, secret = add_key(house.engine, asked.name, asked.requests_per_minute, asked.metrics, asked.guards, tell)
    except BaseException:
        with suppress(IngleError):  # the fact says that there is a key, and there is none
            for id_ in said:
                house.record(Event("key.revoke", id_, {"name": asked.name}))
        raise
    return NewKeyTold(key.id, key.name, key.created, key.revoked, key.requests_per_minute, key.metrics, key.guards, secret)


@dataclass(frozen=True, slots=True)
class OldKey:
    """A key to be revoked."""

    name: Annotated[str, About("The key's name, or its id.", "NAME", placed=True)]


@operation("home keys revoke", right="owner", says=lambda key: (f"{key.name} ({key.id}) is revoked.",))
def revoke(house: House, asked: OldKey) -> KeyTold:
    """Revoke an API key: it is refused at once.

    Examples:
        ingle home keys revoke laptop
    """
    try:
        key = revoke_key(house.engine, asked.name)  # first, so that a ledger that can't be written doesn't keep a stolen key alive
    except NotKept:
        if (owed := _without_fact(house, asked.name)) is None:
            raise
        key = owed
    house.record(Event("key.revoke", key.id, {"name": key.name}))
    return _told(key)


def _without_fact(house: House, id_or_name: str) -> ApiKey | None:
    """Return the revoked key of that id or name that no fact calls revoked: something failed or ended us in between."""
    gone = [key for key in list_keys(house.engine) if id_or_name in (key.id, key.name) and key.revoked is not None]
    told = {row.subject for row in Ledger(house.engine, house.home.keys).read("key.revoke")}
    return next((key for key in gone if key.id not in told), None)
