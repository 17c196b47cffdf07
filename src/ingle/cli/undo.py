"""`ingle undo`."""

from typing import Annotated

import typer

from ingle.core.errors import counted, shortened

EXAMPLES = """
ingle undo   (the last thing that was taught)
ingle undo 3
ingle undo ex-2f9c   (the first digits of its id, or of the lesson's: ingle learn --list)
"""

_SHORTEST_ID = 4  # digits; fewer are a number of things


def command(
    which: Annotated[str, typer.Argument(metavar="[N|ID]", help="How many of the last ones to undo, or the id of one.")] = "1",
    owner: Annotated[str, typer.Option(help="Id of the API key that owns it; by default your own.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Undo what was taught: the model is what it was before.

    It stays in the home, without acting: `ingle redo` brings it back, `ingle forget` deletes it.
    """
    from ingle.adapt import undo as adapt
    from ingle.app.house import enter, open_rooms
    from ingle.cli.output import print_json, printable
    from ingle.ledger.chain import Ledger

    home = enter()
    engine = open_rooms(home)
    sink = Ledger(engine, home.keys).append
    try:
        undone = adapt.undo(home, engine, owner, int(which) if which.isdecimal() and len(which) < _SHORTEST_ID else which, sink)
    finally:
        engine.dispose()
    if as_json:
        print_json({"examples": [one.id for one in undone.examples], "again": undone.again, "back": undone.back})
        return
    for one in undone.examples:
        print(printable(f"undone: {one.id}  {shortened(one.question or one.answer, 60)}"))
    if undone.again:
        others = counted(undone.again, "other")
        print(f"Learned together with it, and to be learned again without: {others}. `ingle serve` does so, or `ingle learn`.")
    if undone.back:
        print(f"What was taught before counts again: {', '.join(undone.back)}")
