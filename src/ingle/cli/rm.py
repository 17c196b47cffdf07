"""`ingle rm`."""

import sys
from typing import Annotated

import typer

EXAMPLES = """
ingle rm smollm2
ingle rm smollm2 --yes   (asks nothing)
"""


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A kept model.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Let a kept model go.

    Its files go too, unless another kept model uses them. The ledger keeps the fact that it was here.
    """
    from ingle.cli.house import enter, record
    from ingle.cli.output import confirm, is_terminal, note, print_json, size
    from ingle.core.event import Event
    from ingle.home.kept import get_kept, list_kept, remove

    home = enter()
    if not yes and is_terminal(sys.stdin):
        kept = get_kept(home, name)
        shared = [other.name for other in list_kept(home) if other.base == kept.base and other.name != name]
        files = f"its files stay, {shared[0]} uses them" if shared else "with its files"
        if not confirm(f"Remove {name} ({files})?"):
            note("Nothing was removed.")
            raise typer.Exit(1)
    freed = remove(home, name)
    record(home, Event("rm", name, {"bases": len(freed.bases), "base": freed.bases[0] if freed.bases else None, "bytes": freed.nbytes}))
    if as_json:
        print_json({"name": freed.name, "bases": list(freed.bases), "bytes": freed.nbytes})
    else:
        print(f"{name} is gone; {size(freed.nbytes)} freed.")
