"""`ingle keep`."""

from functools import partial
from typing import Annotated

import typer

EXAMPLES = """
ingle keep smollm2+letters as letters
ingle keep smollm2+letters --as letters
"""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL+DELTA", help="A model, with or without deltas.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="as NAME", help="What to call it.")] = None,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="What to call it, as an option.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Name a model together with its deltas.

    Nothing is copied: the name stands for the same base and the same deltas, which can't be removed as long as it is there.
    """
    from ingle.app.house import enter, record
    from ingle.cli.output import print_json
    from ingle.cli.training import recorder
    from ingle.core.errors import ConfigError
    from ingle.core.report import Event, Fact
    from ingle.home.kept import get_kept, keep, list_kept

    chosen = _name(words or [], name)
    home = enter()
    kept = get_kept(home, model)
    if kept.name == chosen:
        raise ConfigError("name", f"The model is called {chosen} already", "", "Choose another name.")
    before = {one.name for one in list_kept(home)}
    new = keep(home, chosen, kept.base, kept.deltas)
    facts: dict[str, Fact] = {"of": kept.name, "base": kept.base, "deltas": len(kept.deltas), "stack": kept.digest}
    tell = recorder(home, "stack") if new.name in before else partial(record, home)  # a kill may have come between the name and its fact
    tell(Event("keep", new.name, facts))
    if as_json:
        print_json({"name": new.name, "of": kept.name, "base": new.base, "deltas": list(new.deltas)})
        return
    print(f"{new.name} is {kept.name}.")
    print(f"Talk with it: ingle chat {new.name}")


def _name(words: list[str], name: str | None) -> str:
    """Return the name in `as NAME` or `--as NAME`. Raises ConfigError if there is none, or more than one."""
    from ingle.core.errors import ConfigError

    names = [*(words[1:] if words[:1] == ["as"] else words), *([name] if name is not None else [])]
    if len(names) != 1:
        raise ConfigError("name", "Give one name", " ".join(names), "Say: ingle keep MODEL+DELTA as NAME")
    return names[0]
