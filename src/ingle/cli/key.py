"""`ingle home keys`."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.home.api_keys import ApiKey
    from ingle.home.place import Home

EXAMPLES = """
ingle home keys add laptop
ingle home keys add phone --requests-per-minute 30 > phone.key
ingle home keys add prometheus --metrics   (may read the figures of the whole server, too)
ingle home keys add me --guards            (may teach the guards, which act for everybody)
ingle home keys list
ingle home keys revoke laptop
"""


def command(
    action: Annotated[Literal["add", "list", "revoke"], typer.Argument(help="What to do.")] = "list",
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The key's name; to revoke one, its id will do too.")] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option("--requests-per-minute", metavar="N", help="Most requests a minute with the new key; by default as the server says."),
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="The new key may read /metrics, the figures of the whole server.")] = False,
    guards: Annotated[
        bool, typer.Option("--guards", help="The new key may teach the guards of this home, which act for everybody.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Add, list and revoke API keys.

    A new key is printed once, alone on standard output; this home keeps only its hash. A revoked one is refused at once.
    """
    from ingle.app.house import enter
    from ingle.core.errors import ConfigError
    from ingle.home.api_keys import MIGRATIONS, list_keys
    from ingle.home.database import open_database

    if action == "list" and name is not None:
        raise ConfigError("NAME", "Listing keys takes no name", name, "Say: ingle home keys list")
    if action != "list" and name is None:
        raise ConfigError("NAME", f"Say which key to {action}", "", f"For example: ingle home keys {action} laptop")
    for option, given in (("--requests-per-minute", requests_per_minute is not None), ("--metrics", metrics), ("--guards", guards)):
        if action != "add" and given:
            rest = " N" if option == "--requests-per-minute" else ""
            raise ConfigError(option, f"Only a new key can be given {option}", "", f"Say: ingle home keys add NAME {option}{rest}")
    home = enter()
    if action == "list" and not home.other_database and not home.database_file.exists():
        _print_list((), as_json)
        return
    engine = open_database(home.database_url, {"api_keys": MIGRATIONS})
    try:
        if action == "list":
            _print_list(list_keys(engine), as_json)
        elif action == "add":
            _add(home, engine, name or "", requests_per_minute, metrics, guards, as_json)
        else:
            _revoke(home, engine, name or "", as_json)
    finally:
        engine.dispose()


def _add(home: "Home", engine: "Engine", name: str, requests_per_minute: int | None, metrics: bool, guards: bool, as_json: bool) -> None:
    from ingle.app.house import record
    from ingle.cli.output import note, print_json
    from ingle.core.errors import IngleError
    from ingle.core.report import Event, Fact
    from ingle.home.api_keys import add_key, key_hash

    told = list[str]()

    def tell(key: "ApiKey", secret: str) -> None:
        # Before the key is good: whatever fails or ends us after it, no key is good without a fact that says so.
        facts: dict[str, Fact] = {
            "name": key.name,
            "requests_per_minute": requests_per_minute,
            "metrics": metrics,
            "guards": guards,
            "sha256": key_hash(secret),
        }
        record(home, Event("key.add", key.id, facts))
        told.append(key.id)

    try:
        key, secret = add_key(engine, name, requests_per_minute, metrics, guards, tell)
    except BaseException:
        with suppress(IngleError):  # the fact says that there is a key, and there is none
            for id_ in told:
                record(home, Event("key.revoke", id_, {"name": name}))
        raise
    if as_json:
        print_json({**_table(key), "key": secret})
    else:
        print(secret)
        note(f"This is the key of {key.name} ({key.id}). It is shown this once; only its hash is kept.")


def _revoke(home: "Home", engine: "Engine", name: str, as_json: bool) -> None:
    from ingle.app.house import record
    from ingle.cli.output import print_json, printable
    from ingle.core.errors import NotKept
    from ingle.core.report import Event
    from ingle.home.api_keys import revoke_key

    try:
        key = revoke_key(engine, name)  # first, so that a ledger that can't be written doesn't keep a stolen key alive
    except NotKept:
        if (owed := _without_fact(home, engine, name)) is None:
            raise
        key = owed
    record(home, Event("key.revoke", key.id, {"name": key.name}))
    if as_json:
        print_json(_table(key))
    else:
        print(printable(f"{key.name} ({key.id}) is revoked."))


def _without_fact(home: "Home", engine: "Engine", id_or_name: str) -> "ApiKey | None":
    """Return the revoked key of that id or name that no fact calls revoked: something failed or ended us in between."""
    from ingle.app.house import open_ledger
    from ingle.home.api_keys import list_keys

    keys = [key for key in list_keys(engine) if id_or_name in (key.id, key.name) and key.revoked is not None]
    with open_ledger(home) as ledger:
        told = {row.subject for row in ledger.read("key.revoke")}
    return next((key for key in keys if key.id not in told), None)


def _print_list(keys: Sequence["ApiKey"], as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table

    if as_json:
        print_json([_table(key) for key in keys])
    elif keys:
        rows = [
            (
                key.name, key.id, key.created[:10], str(key.requests_per_minute or "-"), "yes" if key.metrics else "-",
                "yes" if key.guards else "-",
                key.revoked[:10] if key.revoked else "-",
            )
            for key in keys
        ]  # fmt: skip
        print_table(("NAME", "ID", "SINCE", "PER MINUTE", "METRICS", "GUARDS", "REVOKED"), rows)
    else:
        note("There are no keys yet; `ingle home keys add NAME` makes one.")


def _table(key: "ApiKey") -> dict[str, Any]:
    return {
        "id": key.id, "name": key.name, "created": key.created, "revoked": key.revoked, "requests_per_minute": key.requests_per_minute,
        "metrics": key.metrics, "guards": key.guards,
    }  # fmt: skip
