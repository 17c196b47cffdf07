"""`ingle head`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """
ingle head --out /media/stick/ingle.head
ingle verify --head /media/stick/ingle.head   (later: was anything cut off since?)
ingle head rotate                             (where somebody may have read the key)
"""


def command(
    action: Annotated[Literal["export", "rotate"], typer.Argument(help="What to do.")] = "export",
    out: Annotated[Path | None, typer.Option(help="File to write it to; by default it is printed.")] = None,
) -> None:
    """Export the ledger's signed head, or rotate the key that signs it.

    Whoever has a head can prove later that the ledger had these facts, even against the owner of this machine. A rotation makes a new key,
    which the old one vouches for, and deletes the old private key; heads that were exported earlier stay good.
    """
    import json
    from dataclasses import asdict

    from ingle.cli.house import enter, open_ledger
    from ingle.core.errors import ConfigError, LedgerError
    from ingle.ledger.head import export_head

    if action == "rotate" and out is not None:
        raise ConfigError("--out", "A rotation writes no head", "", "Say: ingle head rotate, then: ingle head --out FILE")
    with open_ledger(enter()) as ledger:
        taken = ledger.rotate() if action == "rotate" else None
        head = ledger.head()
    if head is None:
        raise LedgerError("ledger", "has no signed head yet", "", "It gets one with its first fact, or run `ingle verify`.")
    if taken is not None:
        print(f"Key {head.fingerprint[:12]} signs from fact {taken.seq} on; the private key {str(taken.values['key'])[:12]} is deleted.")
    elif out is None:
        print(json.dumps(asdict(head)))
    else:
        export_head(head, out)
        print(f"Row {head.seq}, key {head.fingerprint[:12]}, is in {out}.")
