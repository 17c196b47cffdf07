"""Renders an operation as a command: arguments from the fields of what is asked, text or JSON from what is told."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer

from ingle.app.house import House, enter
from ingle.app.operation import About, Note, Operation, Rows, Said, abouts, asked_of, table_of
from ingle.cli.output import confirm, is_terminal, note, print_json, print_table, printable
from ingle.cli.progress import watching
from ingle.core.errors import ConfigError, RequestError
from ingle.core.files import write_atomic

if TYPE_CHECKING:
    from ingle.learn.learner import LessonOutcome

_ANYHOW = (bool, int, float, str, Path)  # types that Typer reads as they are


def command_of(operation: Operation) -> Callable[..., None]:
    """Return the function of an operation that Typer makes a command of."""
    fields = abouts(operation.asked)
    more: dict[str, tuple[Any, About]] = {"as_json": (bool, About("Print the result as JSON.", also=("--json",)))}
    if operation.right == "own":
        more["owner"] = (str, About("Id of the API key that owns it; by default your own."))
    if operation.asks:
        more["yes"] = (bool, About("Don't ask for confirmation.", also=("--yes", "-y")))
    if operation.forms:
        more["out"] = (Path, About(f"Write it to a file: {_forms(operation)}.", "FILE"))

    def command(**given: Any) -> None:
        out = given["out"] if operation.forms else None
        if out is not None and out.suffix not in (*operation.forms, ".json"):
            raise ConfigError("--out", f"must end in {_forms(operation)}", out.suffix or "nothing")
        house = House(enter(), given.get("owner") or "")
        house.learn_now = partial(_learn_now, house)
        try:
            asked = asked_of(operation, _given(fields, given))
            if operation.asks and not given["yes"] and is_terminal(sys.stdin):
                asked = operation.asks(house, asked, confirm)
                if asked is None:
                    note("Nothing was changed.")
                    raise typer.Exit(1)
            with watching() as house.watch:
                told = operation.run(house, asked)
        finally:
            house.close()
        if out is not None:
            _write(operation, told, out)
        elif given["as_json"]:
            _print_json(table_of(told))
        else:
            show(operation.says(told))
        if code := operation.code(told):
            raise typer.Exit(code)

    defaults = inspect.signature(operation.asked).parameters
    parameters = [_parameter(name, type_, about, defaults[name].default) for name, (type_, about, _) in fields.items()]
    parameters += [_parameter(name, type_, about, None if type_ is Path else type_()) for name, (type_, about) in more.items()]
    parameters.sort(key=lambda one: one.default is not inspect.Parameter.empty)
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = f"{operation.words}\n\n{operation.details}"
    return command


def _learn_now(house: House, together: bool) -> "Sequence[LessonOutcome]":
    from ingle.cli.learn import learn_now

    return learn_now(house.home, house.engine, together)


def _forms(operation: Operation) -> str:
    *most, last = (*operation.forms, ".json")
    return f"{', '.join(most)} or {last}"


def _write(operation: Operation, told: Any, out: Path) -> None:
    text = json.dumps(table_of(told), ensure_ascii=False, indent=1) if out.suffix == ".json" else operation.forms[out.suffix](told)
    write_atomic(out, text.encode(), mode=0o600)
    note(f"Written to {out}. Nobody else on this machine may read it: it can hold your words.")


def _print_json(table: Mapping[str, Any]) -> None:
    """Print what is told: a list as its members, for `jq '.[]'`; what may be long as a line a member; a report as it is kept."""
    if table.get("object") == "lines":
        for one in table["data"]:
            print(json.dumps(one, ensure_ascii=False))
    else:
        print_json(table["data"] if table.get("object") in ("list", "report") else table)


def show(lines: Iterable[Said]) -> None:
    """Print what is told to a person."""
    for line in lines:
        if isinstance(line, Rows):
            print_table(line.head, line.rows)
        elif isinstance(line, Note):
            note(line.text)
        else:
            print(printable(line))


def _parameter(name: str, type_: Any, about: About, default: Any) -> inspect.Parameter:
    shown = default if default is None or default is inspect.Parameter.empty or _plain(type_) else str(default)
    read: Any = type_ if _plain(type_) and not (about.placed and bool in get_args(type_)) else str | None if default is None else str
    if about.many or get_origin(type_) is tuple:
        needed = default is inspect.Parameter.empty
        shown, read = (default, list[str]) if needed else (None, list[str] | None)
    sign: Any = about.sign or None
    option: Any = typer.Argument(help=about.words, metavar=sign)
    if not about.placed:
        option = typer.Option(*about.also, help=about.words, metavar=sign)
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=shown, annotation=Annotated[read, option])


def _plain(type_: Any) -> bool:
    """Return whether Typer reads this type as we do: one of `_ANYHOW`, or None besides."""
    members = get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)
    return sum(one is not NoneType for one in members) == 1 and all(one in (*_ANYHOW, NoneType) for one in members)


def _given(fields: Mapping[str, tuple[Any, About, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, as plain values: what Typer read as text is a number or a word."""
    table = {}
    for name, (type_, about, _) in fields.items():
        value = " ".join(given[name] or ()) or None if about.many else given[name]
        if isinstance(value, str) and type_ is not str and type_ != str | None:
            value = _yes(name, value) if about.placed and bool in get_args(type_) else _read(value)
        if value is not None:
            table[name] = value
    return table


def _yes(name: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise RequestError(name, "must be yes or no", text)
    return text == "yes"


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
