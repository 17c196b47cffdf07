"""`ingle verify`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.place import Home

EXAMPLES = """
ingle verify
ingle verify --models
ingle verify --head /media/stick/ingle.head
"""
BROKEN = 7


def command(
    head: Annotated[Path | None, typer.Option(help="A head that was exported earlier: it must be part of the chain.")] = None,
    models: Annotated[bool, typer.Option("--models", help="Also read every file of every kept model again.")] = False,
    accept_loss: Annotated[bool, typer.Option("--accept-loss", help="Go on after facts were lost; this itself becomes a fact.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove that the ledger is whole, and on request the models too.

    Exit code 7 if anything is not as it was signed.
    """
    from ingle.cli.house import enter, open_ledger
    from ingle.cli.output import print_json, printable
    from ingle.ledger.head import load_head

    home = enter()
    exported = load_head(head) if head else None
    with open_ledger(home) as ledger:
        accepted = ledger.accept_loss().seq if accept_loss else None
        result = ledger.verify(exported)
    faults = list(_faults(home)) if models else []
    if as_json:
        problem = {"seq": result.problem.seq, "what": result.problem.what} if result.problem else None
        told = {"facts": result.count, "problem": problem, "head": result.head.seq if result.head else None, "accepted_loss": accepted}
        print_json(told | {"models": [{"model": name, "fault": what} for name, what in faults] if models else None})
    else:
        if accepted:
            print(f"The loss is now fact {accepted}.")
        if result.problem:
            where = f"fact {result.problem.seq}" if result.problem.seq else "the ledger"
            print(printable(f"BROKEN at {where}: {result.problem.what}. The {result.count} facts before it are sound."))
        else:
            key = f", key {result.head.fingerprint[:12]}" if result.head else ""
            print(f"The ledger is whole: {result.count} facts{key}.")
        for name, what in faults:
            print(printable(f"BROKEN model {name}: {what}"))
        if models and not faults:
            print("Every file of every kept model is as it was pulled.")
    if result.problem or faults:
        raise typer.Exit(BROKEN)


def _faults(home: "Home") -> Iterator[tuple[str, str]]:
    """(model, what is wrong with it), for every file of every kept model."""
    from ingle.cli.progress import watching
    from ingle.core.errors import HomeError
    from ingle.home.base import verify_base
    from ingle.home.kept import list_kept

    with watching() as watch:
        for kept in list_kept(home):
            try:
                for fault in verify_base(home, kept.base, watch.bytes):
                    yield kept.name, f"{fault.file} is {fault.what} (expected {fault.expected}, got {fault.got})"
            except HomeError as error:
                yield kept.name, str(error)
