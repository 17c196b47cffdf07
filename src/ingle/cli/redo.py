"""`ingle redo`."""

from typing import Annotated

import typer

EXAMPLES = """
ingle redo   (what was undone last)
ingle redo ex-2f9c
"""


def command(
    which: Annotated[str, typer.Argument(metavar="[ID]", help="What to bring back; by default what was undone last.")] = "",
    owner: Annotated[str, typer.Option(help="Id of the API key that owns it; by default your own.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Bring back what was undone: it acts again."""
    from ingle.adapt import undo as adapt
    from ingle.app.house import enter, open_rooms
    from ingle.cli.output import print_json, printable
    from ingle.core.errors import shortened
    from ingle.ledger.chain import Ledger

    home = enter()
    engine = open_rooms(home)
    try:
        ledger = Ledger(engine, home.keys)
        names = (str(row.values.get("example", "")) for row in ledger.read(kind="undo"))
        one = adapt.redo(home, engine, owner, which or adapt.undone_last(engine, owner, names), ledger.append)
    finally:
        engine.dispose()
    if as_json:
        print_json({"examples": [one.id]})
    else:
        print(printable(f"redone: {one.id}  {shortened(one.question or one.answer, 60)}"))
