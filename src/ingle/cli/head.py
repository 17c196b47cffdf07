"""`ingle head`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
ingle head --out /media/stick/ingle.head
ingle verify --head /media/stick/ingle.head   (later: was anything cut off since?)
"""


def command(out: Annotated[Path | None, typer.Option(help="File to write it to; by default it is printed.")] = None) -> None:
    """Export the ledger's signed head, as proof to keep elsewhere.

    Whoever has it can prove later that the ledger had these facts, even against the owner of this machine.
    """
    import json
    from dataclasses import asdict

    from ingle.cli.house import enter, open_ledger
    from ingle.core.errors import LedgerError
    from ingle.ledger.head import export_head

    with open_ledger(enter()) as ledger:
        head = ledger.head()
    if head is None:
        raise LedgerError("ledger", "has no signed head yet", "", "It gets one with its first fact, or run `ingle verify`.")
    if out is None:
        print(json.dumps(asdict(head)))
    else:
        export_head(head, out)
        print(f"Row {head.seq}, key {head.fingerprint[:12]}, is in {out}.")
