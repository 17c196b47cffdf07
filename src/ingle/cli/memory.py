"""`ingle memory`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingle.core.example import Example
    from ingle.home.place import Home

EXAMPLES = """
ingle memory
ingle memory list "who leads"
ingle memory add "The owner keeps bees."
ingle memory edit ex-3f09 "Mara Quill leads it."
ingle memory rm ex-3f09
ingle memory consent no   (the weights don't learn from what you teach)
"""
_WIDTH = 48


def command(
    action: Annotated[Literal["list", "add", "edit", "rm", "consent"], typer.Argument(help="What to do.")] = "list",
    words: Annotated[list[str] | None, typer.Argument(metavar="[ID] [TEXT]", help="What to look for, add, change; yes or no.")] = None,
    model: Annotated[str, typer.Option(metavar="MODEL", help="The model to tell; by default smollm2, or the only one.")] = "",
    turns: Annotated[bool, typer.Option("--turns", help="With rm: kept messages that hold the words go too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List, add and change what is remembered.

    An id may be shortened. `rm` deletes: words, index, states that have read them, and every lesson that learned from them.
    """
    from ingle.app.house import enter, open_rooms
    from ingle.core.errors import ConfigError
    from ingle.home.taught import anything_taught

    arguments = words or []
    least, most = {"list": (0, 99), "add": (1, 1), "edit": (2, 2), "rm": (1, 1), "consent": (0, 1)}[action]
    if not least <= len(arguments) <= most:
        usage = {"add": "add TEXT", "edit": "edit ID TEXT", "rm": "rm ID", "consent": "consent [yes|no]"}[action]
        raise ConfigError(f"memory {action}", f"Say: ingle memory {usage}", " ".join(arguments))
    home = enter()
    if action == "list" and not anything_taught(home):
        _print_list((), as_json)
        return
    engine = open_rooms(home)
    try:
        _obey(home, engine, action, arguments, model, turns, as_json)
    finally:
        engine.dispose()


def _obey(home: "Home", engine: "Engine", action: str, arguments: Sequence[str], model: str, turns: bool, as_json: bool) -> None:
    from ingle.adapt.admit import TeachingLimits, edit, remember
    from ingle.adapt.forget import forget
    from ingle.app.choose import choose
    from ingle.app.here import OWNER
    from ingle.app.house import record
    from ingle.cli.forget import show_forgotten
    from ingle.cli.output import print_json
    from ingle.serve.feedback_table import example_table

    if action == "list":
        _print_list(_found(engine, " ".join(arguments)), as_json)
    elif action == "consent":
        _consent(home, engine, arguments, as_json)
    elif action == "rm":
        gone = forget(home, engine, OWNER, _id_of(engine, arguments[0]), lambda event: record(home, event), turns)
        show_forgotten(engine, OWNER, gone, as_json)
    else:
        if action == "add":
            name = choose(home, model).name
            example = remember(engine, OWNER, name, arguments[0], TeachingLimits(per_hour=0), lambda event: record(home, event))
        else:
            example = edit(home, engine, OWNER, _named(engine, arguments[0]).id, arguments[1], lambda event: record(home, event))
        if as_json:
            print_json(example_table(example))
        else:
            print(f"{example.id} is remembered.")


def _found(engine: "Engine", words: str) -> Sequence["Example"]:
    from ingle.app.here import OWNER
    from ingle.home.examples import MEMORY, list_examples, search_examples

    if words:
        return search_examples(engine, OWNER, words, 100)
    return [one for one in list_examples(engine, OWNER, MEMORY) if one.kind != "rating"]


def _named(engine: "Engine", name: str) -> "Example":
    """Return the example whose id begins so. Raises NotKept if there is none, ConfigError if there are several."""
    from ingle.app.here import OWNER
    from ingle.core.errors import ConfigError
    from ingle.home.examples import get_example, list_examples

    matches = [one for one in list_examples(engine, OWNER) if name and one.id.startswith((name, f"ex-{name}"))]
    if len(matches) > 1:
        raise ConfigError("ID", f"{len(matches)} examples have an id that begins with {name}", "", "Give more of it.")
    return matches[0] if matches else get_example(engine, OWNER, name)


def _id_of(engine: "Engine", name: str) -> str:
    """Return the id of the example whose id begins so; the name itself if there is none: a kill may have left it half forgotten."""
    from ingle.core.errors import NotKept

    try:
        return _named(engine, name).id
    except NotKept:
        return name


def _consent(home: "Home", engine: "Engine", arguments: Sequence[str], as_json: bool) -> None:
    from ingle.adapt.admit import consent
    from ingle.app.here import OWNER
    from ingle.app.house import record
    from ingle.cli.output import print_json
    from ingle.core.errors import ConfigError
    from ingle.home.examples import may_learn

    if arguments:
        if arguments[0] not in ("yes", "no"):
            raise ConfigError("memory consent", "must be yes or no", arguments[0])
        consent(engine, OWNER, arguments[0] == "yes", lambda event: record(home, event))
    learn = may_learn(engine, OWNER)
    if as_json:
        print_json({"learn": learn})
    else:
        print(
            "The weights learn from what you teach." if learn else "The weights don't learn from what you teach; memory works all the same."
        )


def _print_list(examples: Sequence["Example"], as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.serve.feedback_table import example_table

    if as_json:
        print_json([example_table(one) for one in examples])
    elif examples:
        rows = [(one.id, one.state, one.model, _short(one.question) or "-", _short(one.answer)) for one in examples]
        print_table(("ID", "STATE", "MODEL", "QUESTION", "ANSWER"), rows)
    else:
        note("Nothing is remembered yet. Use `ingle teach QUESTION ANSWER` or `ingle memory add TEXT`.")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
