"""`ingle prove head`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ingle.ledger.chain import Ledger
    from ingle.ledger.head import Head

EXAMPLES = """
ingle prove head --out /media/stick/ingle.head
ingle verify --head /media/stick/ingle.head   (later: was anything cut off since?)
ingle prove head --out ingle.head --timestamp https://tsa.example.org
ingle prove head rotate                             (where somebody may have read the key)
"""


def command(
    action: Annotated[Literal["export", "rotate"], typer.Argument(help="What to do.")] = "export",
    out: Annotated[Path | None, typer.Option(help="File to write it to; by default it is printed.")] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have it time-stamped (RFC 3161) by the authority at URL, which learns its SHA-256 and no more."),
    ] = None,
) -> None:
    """Export the ledger's signed head, or rotate the key that signs it.

    Whoever has a head can prove later that the ledger had these facts, even against the owner of this machine; with a time-stamp, that it
    had them by then. A rotation makes a new key, which the old one vouches for, and deletes the old private key; earlier heads stay good.
    """
    from ingle.app.house import enter, open_ledger
    from ingle.core.errors import ConfigError, LedgerError
    from ingle.ledger.head import export_head, head_bytes

    if action == "rotate" and (out or timestamp):
        raise ConfigError("--out", "A rotation writes no head", "", "Say: ingle prove head rotate, then: ingle prove head --out FILE")
    if timestamp and not out:
        raise ConfigError("--timestamp", "A time-stamp lies beside an exported head", "", "Say where: --out FILE")
    with open_ledger(enter()) as ledger:
        if action == "rotate":
            taken, head = ledger.rotate(), ledger.head()
            assert head is not None
            new, old = head.fingerprint[:12], str(taken.values["key"])[:12]
            print(f"Key {new} signs from fact {taken.seq} on. The private key {old} is deleted; what it signed stays proven.")
            return
        head = ledger.head()
        if head is None:
            raise LedgerError("ledger", "has no signed head yet", "", "It gets one with its first fact, or run `ingle verify`.")
        if out and timestamp:
            _stamp(ledger, head, out, timestamp)
        elif out:
            export_head(head, out)
            print(f"Row {head.seq}, key {head.fingerprint[:12]}, is in {out}.")
        else:
            print(head_bytes(head).decode(), end="")


def _stamp(ledger: "Ledger", head: "Head", out: Path, url: str) -> None:
    from ingle.cli.output import note, printable
    from ingle.home.fetch import make_opener
    from ingle.ledger.stamp import stamp_file, stamp_head

    event = stamp_head(head, out, url, make_opener())
    ledger.append(event)
    print(f"Row {head.seq}, key {head.fingerprint[:12]}, is in {out}.")
    print(printable(f"{event.facts['host']} stamped it at {event.facts['at']}, in {stamp_file(out)}."))
    note(f"Nobody checked yet who signed that: ingle verify --head {out} --tsa-roots FILE")
