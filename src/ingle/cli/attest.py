"""`ingle prove attest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.ledger.chain import Ledger

EXAMPLES = """
ingle log --facts   (which numbers facts have)
ingle prove attest 17 --out proof
ingle prove attest chatcmpl-1f0c… 3 4 --out proof.zip
ingle prove attest 12 --card card.json --out account
python proof/verify.py proof   (what others do with it, without Ingle)
"""


def command(
    events: Annotated[list[str], typer.Argument(metavar="EVENT…", help="Numbers of facts in the ledger, or ids of answers.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make, or a file NAME.zip.")],
    card: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A card to sign and add; may be given more than once.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove facts of the ledger to others, who need no Ingle.

    Writes the facts, the proof that each is in this ledger, the public keys, and verify.py, which checks all of it with Python and
    `cryptography` alone. Other facts stay at home: only hashes of them are in it.
    """
    from ingle.app.house import enter
    from ingle.cli.output import note, print_json
    from ingle.core.errors import counted
    from ingle.core.files import os_errors
    from ingle.ethics.bundle import attest
    from ingle.home.database import open_database
    from ingle.ledger.chain import Ledger
    from ingle.ledger.table import MIGRATIONS

    home = enter()
    cards = dict[str, bytes]()
    for path in card or ():
        with os_errors(path):
            cards[path.name] = path.read_bytes()
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        ledger = Ledger(engine, home.keys)
        found = attest(home, engine, [_number(ledger, event) for event in events], cards, out)
    finally:
        engine.dispose()
    seqs = [one.row.seq for one in found.proven]
    if as_json:
        print_json({"out": str(out), "seqs": seqs, "head": found.head.seq, "key": found.head.fingerprint, "cards": sorted(cards)})
        return
    what = counted(len(seqs), "fact") + (f" and {counted(len(cards), 'card')}" if cards else "")
    print(f"In {out}: {what} of a ledger of {found.head.seq}, with the proofs. Fact {seqs[0]} names the key that signed them.")
    print(f"The ledger's key is {found.head.fingerprint}.")
    note("Give that fingerprint to those who verify by another way than the bundle: it is all that they have to trust.")


def _number(ledger: "Ledger", event: str) -> int:
    from ingle.app.replay import find_row

    return int(event) if event.isdecimal() and len(event) < 16 else find_row(ledger, event).seq
