"""`ingle rm`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.place import Home

EXAMPLES = """
ingle rm smollm2
ingle rm smollm2 --yes   (asks nothing)
ingle rm smollm2+mine   (the delta alone)
ingle rm kokoro   (voices)
"""


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, MODEL+DELTA, or a part (a voice, …).")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Delete a model or a delta.

    Its files are deleted too, unless another model uses them, and so are the lessons that were made for it. What was taught stays, for
    the next model of this name. Of MODEL+DELTA only the delta goes. The ledger still says that it was here.
    """
    from ingle.app.house import enter, record
    from ingle.cli.output import confirm, is_terminal, note, print_json
    from ingle.core.errors import size
    from ingle.home.kept import remove
    from ingle.home.parts import list_parts

    home = enter()
    if any(part.name == name for part in list_parts(home)):
        _remove_part(home, name, yes, as_json)
        return
    if not yes and is_terminal(sys.stdin) and not confirm(f"Remove {name} ({_what(home, name)})?"):
        note("Nothing was removed.")
        raise typer.Exit(1)
    freed = remove(home, name, lambda freed: record(home, freed.event))
    _put_right(home)
    if as_json:
        print_json({"name": freed.name, "bases": list(freed.bases), "deltas": list(freed.deltas), "bytes": freed.nbytes})
    else:
        print(f"{name} is gone; {size(freed.nbytes)} freed.")


def _remove_part(home: "Home", name: str, yes: bool, as_json: bool) -> None:
    """Delete ears, a voice or eyes."""
    from ingle.app.house import record
    from ingle.cli.output import confirm, is_terminal, note, print_json
    from ingle.core.errors import size
    from ingle.home.parts import remove_part

    if not yes and is_terminal(sys.stdin) and not confirm(f"Remove {name} (with its files)?"):
        note("Nothing was removed.")
        raise typer.Exit(1)
    freed = remove_part(home, name, lambda event: record(home, event))
    if as_json:
        print_json({"name": name, "bytes": freed})
    else:
        print(f"{name} is gone; {size(freed)} freed.")


def _put_right(home: "Home") -> None:
    """Have the lessons that went with a model learned again. A running learner does so by itself."""
    from contextlib import suppress

    from ingle.app.house import open_rooms
    from ingle.core.errors import HomeError
    from ingle.home.taught import anything_taught
    from ingle.learn.learner import LOCK
    from ingle.learn.work import put_right

    if not anything_taught(home):
        return
    engine = open_rooms(home)
    try:
        with suppress(HomeError), home.lock(LOCK, timeout_s=0):
            put_right(home, engine)
    finally:
        engine.dispose()


def _what(home: "Home", name: str) -> str:
    """Say what else would be deleted."""
    from ingle.core.errors import HomeError
    from ingle.home.kept import get_kept, list_kept

    model, _, delta = name.rpartition("+")
    if model:
        get_kept(home, name)
        return f"the delta {delta}; {model} stays"
    try:
        kept = get_kept(home, name)
    except HomeError:
        return "its file is damaged"
    shared = [other.name for other in list_kept(home, lambda *_: None) if other.base == kept.base and other.name != name]
    return f"its files stay, {shared[0]} uses them" if shared else "with its files"
