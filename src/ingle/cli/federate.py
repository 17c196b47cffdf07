"""`ingle federate`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ingle.core.errors import counted

if TYPE_CHECKING:
    from ingle.federated.invitation import Invitation
    from ingle.home.place import Home

EXAMPLES = """
ingle federate key                                (hand this line to who invites)
ingle federate invite street --model smollm2 --member KEY --member KEY --link 192.168.1.20:9400
ingle federate join street.toml --data letters.jsonl
ingle federate start street --data letters.jsonl  (the home that invited; it learns too)
ingle federate status
ingle federate left                               (what left this machine: when, to whom, how much)
ingle federate audit street                       (count all rounds again)
ingle federate leave street
"""
Action = Literal["key", "invite", "join", "start", "status", "left", "audit", "leave"]
_NEED = {"invite": "a name for the federation", "join": "the invitation's file", "start": "the federation's name, or the invitation's file"}


def command(
    action: Annotated[Action, typer.Argument(help="What to do.")] = "status",
    target: Annotated[str | None, typer.Argument(metavar="NAME|FILE", help="A federation's name; to join, the invitation's file.")] = None,
    model: Annotated[str, typer.Option(help="With invite: the model that all homes have.")] = "smollm2",
    member: Annotated[list[str] | None, typer.Option(metavar="KEY", help="With invite: a home's key; say it once for each home.")] = None,
    link: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the homes find the coordinator; with invite by default 127.0.0.1:9400.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="With invite: rounds at the most.")] = 8,
    epsilon: Annotated[float, typer.Option(help="With invite: promise differential privacy of every example; 0 = no promise.")] = 0.0,
    records: Annotated[int, typer.Option(help="With --epsilon: examples that all homes together have, about.")] = 0,
    days: Annotated[int, typer.Option(help="With invite: days until it expires.")] = 30,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With invite: any of its terms, e.g. learning.steps=4.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With invite: where to write it; by default NAME.toml.")] = None,
    data: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="With join and start: examples to learn from.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With join and start: agree without being asked.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="With start: go on in place of a coordinator that is gone.")] = False,
    deadline: Annotated[float, typer.Option(help="With start: seconds that homes have for each stage of a round.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Learn together with other homes; every home keeps its texts.

    Homes train on their own examples and send sums in which no single home's part can be seen. Each home's gate votes on what comes of
    it. In the end every home has the same delta. Nothing starts by itself, and `left` lists whatever left this machine.
    """
    from ingle.app.house import enter
    from ingle.core.errors import ConfigError

    home = enter()
    if action in _NEED and target is None:
        raise ConfigError("NAME|FILE", f"Say {_NEED[action]}", "", f"For example: ingle federate {action} street")
    if action == "key":
        _key(home, as_json)
    elif action == "invite":
        asked = {"link": link or "127.0.0.1:9400", "rounds": rounds, **_promise(epsilon, records)}
        _invite(home, target or "", model, member or [], asked, days, overrides, out, as_json)
    elif action in ("join", "start"):
        from ingle.cli.federating import take_part

        take_part(home, action, target or "", data or [], yes, link, resume, deadline, as_json)
    elif action == "status":
        _status(home, target, as_json)
    elif action == "left":
        _left(home, target or "", as_json)
    elif action == "audit":
        _audit(home, target or "", as_json)
    else:
        _leave(home, target or "", as_json)


def _key(home: "Home", as_json: bool) -> None:
    from ingle.cli.output import note, print_json

    public = _signer_key(home)
    if as_json:
        print_json({"key": public})
        return
    print(public)
    note("This is this home's public key. Whoever invites it needs it: ingle federate invite NAME --member KEY")


def _signer_key(home: "Home") -> str:
    from ingle.app.house import open_ledger
    from ingle.ledger.keys import load_ring

    with open_ledger(home) as ledger:
        ledger.ready()
    return load_ring(home.keys).signers[-1].verifier.public


def _promise(epsilon: float, records: int) -> dict[str, Any]:
    """Return an invitation's terms for privacy of a record: half of the examples a round, cut to the usual length."""
    from ingle.core.errors import ConfigError

    if not epsilon:
        return {}
    if records < 1:
        raise ConfigError("--records", "must say about how many examples all homes have together", records)
    named = {"unit": "record", "epsilon": epsilon, "delta": min(1e-5, 0.1 / records), "clip": 1.0, "share": 0.5, "records": records}
    return {f"privacy.{name}": value for name, value in named.items()}


def _invite(
    home: "Home", name: str, model: str, members: list[str], asked: dict[str, Any], days: int, overrides: list[str] | None,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    from ingle.app.choose import choose
    from ingle.cli.output import note, print_json
    from ingle.core.config import assignments, from_table, to_table, with_overrides
    from ingle.core.errors import ConfigError
    from ingle.core.files import write_atomic
    from ingle.federated.at_home import counted_numbers
    from ingle.federated.consent import terms_in_words
    from ingle.federated.invitation import Invitation, invite, promised, to_text
    from ingle.federated.terms import fewest_of
    from ingle.home.names import check_name
    from ingle.ledger.keys import load_ring

    check_name(name)
    kept = choose(home, model)
    own = _signer_key(home)
    if len(set(members)) < len(members):
        raise ConfigError("--member", "must be different keys", "the same key twice", "Each home has a key of its own.")
    keys = tuple(dict.fromkeys([own, *members]))
    expires = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    plain = to_table(Invitation(name, kept.digest, own, keys, fewest_of(len(keys)), 8, expires))
    invitation = from_table(Invitation, with_overrides(plain, assignments(asked, overrides)))
    signed = invite(promised(counted_numbers(home, kept, invitation)), load_ring(home.keys).signers[-1])
    path = out or Path(f"{name}.toml")
    write_atomic(path, to_text(signed).encode())
    if as_json:
        print_json({"out": str(path), "federation": signed.digest, "homes": len(keys), "rounds": signed.rounds})
        return
    print(f"{path}: {counted(len(keys), 'home')}, {counted(signed.rounds, 'round')}, until {expires}.")
    for line in terms_in_words(signed)[1:]:
        note(line)
    note(f"Hand it to the others, who say: ingle federate join {path} --data FILE. Then: ingle federate start {path} --data FILE")


def _known(home: "Home", name: str | None) -> "list[Invitation]":
    from ingle.federated.consent import federations, find_federation

    return federations(home) if name is None else [find_federation(home, name)]


def _status(home: "Home", name: str | None, as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.federated.consent import federation_status

    found = [federation_status(home, invitation) for invitation in _known(home, name)]
    if as_json:
        print_json([one.table() for one in found])
        return
    if not found:
        note("This home is in no federation. An invitation says which: ingle federate join FILE --data FILE")
        return
    head = ("federation", "model", "homes", "rounds", "lent", "left", "good until")
    print_table(head, [one.row() for one in found])


def _left(home: "Home", name: str, as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.core.config import to_table
    from ingle.core.errors import size
    from ingle.federated.consent import find_federation
    from ingle.federated.standing import folder_of
    from ingle.federated.transport import what_left

    invitation = find_federation(home, name)
    messages = what_left(folder_of(home, invitation))
    if as_json:
        print_json([to_table(one) for one in messages])
        return
    print_table(
        ("when", "to", "what", "size", "sha-256"), [(one.at[:19], one.to, one.kind, size(one.bytes), one.sha256[:12]) for one in messages]
    )
    total = sum(one.bytes for one in messages)
    note(f"{counted(len(messages), 'message')}, {size(total)} in all. None holds a word of an example.")


def _audit(home: "Home", name: str, as_json: bool) -> None:
    from ingle.app.house import open_ledger
    from ingle.cli.output import print_json, print_table
    from ingle.federated.at_home import audit
    from ingle.federated.consent import find_federation

    invitation = find_federation(home, name)
    with open_ledger(home) as ledger:
        result = audit(home, invitation, ledger)
    if as_json:
        print_json(result.table())
    else:
        print_table(
            ("round", "homes", "yes", "no", "ended", "digest"),
            [
                (str(one.number), str(len(one.survivors)), str(len(one.yes)), str(len(one.no)), "taken over" if one.accepted else "dropped",
                 one.digest[:12])
                for one in result.verdicts
            ],
        )  # fmt: skip
        print(result.sentence)
    if result.problems:
        raise typer.Exit(1)


def _leave(home: "Home", name: str, as_json: bool) -> None:
    from ingle.app.house import record
    from ingle.cli.output import note, print_json
    from ingle.federated.consent import find_federation, read_consent, withdraw

    invitation = find_federation(home, name)
    was = read_consent(home, invitation)
    fact = withdraw(home, invitation)
    if was is not None:
        record(home, fact)
    facts: dict[str, Any] = {"federation": invitation.digest, "left": was is not None}
    if as_json:
        print_json(facts)
        return
    print(f"{invitation.name}: " + ("this home lends nothing any more." if was is not None else "this home lent nothing."))
    note("What was sent stays sent, and what all homes learned can't be taken out for one of them. `ingle rm` removes the delta here.")
