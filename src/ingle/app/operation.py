"""Each thing that Ingle can do is declared once: a function from a frozen dataclass to a frozen dataclass.

    @operation("memory add", route="POST /v1/memory")
    def add(house: House, asked: Fact) -> ExampleTold:
        \"""Remember a fact.

        More about it.

        Examples:
            ingle memory add "The owner keeps bees."
        \"""

Terminal, HTTP, Python and the reference render that: arguments, bodies and queries come from the fields of what is asked, JSON from what is
told, help from the docstring. The files of `app/operations/`, a noun each, are found as `core.registry` finds any.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from ingle.app.house import House
from ingle.core import registry
from ingle.core.config import Bounds, check_bounds, from_table
from ingle.core.errors import ConfigError, RequestError

FOLDER = "ingle.app.operations"
A = TypeVar("A")
T = TypeVar("T")
# Who may: every key on what is its own; keys with the right to see all figures, or to set guards; only the owner, at the machine itself.
Right = Literal["own", "metrics", "guards", "owner"]


@dataclass(frozen=True, slots=True)
class About:
    """Words about a field for people, in its annotation: `Annotated[str, About("Its id.")]`."""

    words: str
    sign: str = ""  # what stands for its value in a usage line: KEY=VALUE
    placed: bool = False  # whether a terminal takes it by its place, not by its name
    many: bool = False  # whether several words there are one text
    sets: str = ""  # settings that it sets, of a procedure that has many: "seed train.seed"
    also: tuple[str, ...] = ()  # its names at a terminal, where it is not called like its field: ("--yes", "-y")


@dataclass(frozen=True, slots=True)
class Rows:
    """A table to be shown."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Note:
    """A side remark to be shown."""

    text: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """The asked of an operation that takes nothing."""


Said = str | Rows | Note  # a line, a table or a remark, as a person reads it
Confirm = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that Ingle can do."""

    name: str  # as at a terminal: `undo`, `memory add`
    run: Callable[[House, Any], Any]
    asked: type
    told: type
    route: str  # method and path; "" = not by HTTP
    right: Right
    says: Callable[[Any], Iterable[Said]]  # what is told, for a person
    asks: Callable[[House, Any, Confirm], Any] | None  # at a terminal: asks back, and returns what is asked then, or None to leave it
    code: Callable[[Any], int]  # the exit code at a terminal, by what is told
    forms: Mapping[str, Callable[[Any], str]]  # documents that a terminal writes with `--out`: ".html", …

    @property
    def words(self) -> str:
        """One line about it."""
        return self._doc.split("\n", 1)[0]

    @property
    def details(self) -> str:
        """The rest of its words."""
        return self._doc.partition("\n")[2].partition("Examples:")[0].strip()

    @property
    def examples(self) -> tuple[str, ...]:
        """Commands that show it."""
        return tuple(line.strip() for line in self._doc.partition("Examples:")[2].strip().splitlines())

    @property
    def _doc(self) -> str:
        return inspect.getdoc(self.run) or ""


def operation(
    name: str, route: str = "", right: Right = "own", says: Callable[[Any], Iterable[Said]] = lambda _: (),
    asks: Callable[[House, Any, Confirm], Any] | None = None, code: Callable[[Any], int] = lambda _: 0,
    forms: Mapping[str, Callable[[Any], str]] | None = None,
) -> Callable[[Callable[[House, A], T]], Callable[[House, A], T]]:  # fmt: skip
    """Declare the function below as an operation. See `Operation`."""

    def declare(run: Callable[[House, A], T]) -> Callable[[House, A], T]:
        hints, (_, asked) = typing.get_type_hints(run), inspect.signature(run).parameters
        found = Operation(name, run, hints[asked], hints["return"], route, right, says, asks, code, forms or {})
        vars(run)["operation"] = found
        return run

    return declare


def operations() -> dict[str, Operation]:
    """Return all operations by name."""
    found = [vars(one).get("operation") for module in registry.modules(FOLDER).values() for one in vars(module).values() if callable(one)]
    return {one.name: one for one in found if isinstance(one, Operation)}


def titles() -> dict[str, str]:
    """Return the names of all operations with their words, read as text: importing what some need takes long."""
    return {name: words for file in _files() for name, words in _declared(file).items()}


def find(name: str) -> Operation | None:
    """Return an operation by its name; imports its file alone."""
    declared = re.compile(rf'^@operation\(\s*"{re.escape(name)}"', re.MULTILINE)
    for file in _files():
        if declared.search(file.read_text("utf-8")):  # faster than `_declared`, for whoever only wants to run it
            module = importlib.import_module(f"{FOLDER}.{file.stem}")
            found = (vars(one).get("operation") for one in vars(module).values() if callable(one))
            return next(one for one in found if isinstance(one, Operation) and one.name == name)
    return None


def asked_of(operation: Operation, table: Mapping[str, Any]) -> Any:
    """Return what is asked, from plain values; None is not given.

    Raises RequestError for a value that is none of its kind, or out of bounds.
    """
    given = {name: value for name, value in table.items() if value is not None}
    try:
        asked: Any = from_table(operation.asked, given)
        check_bounds(asked)
    except ConfigError as error:
        raise RequestError(error.field, error.rule, error.got, error.cure) from error
    return asked


def abouts(cls: type) -> Mapping[str, tuple[Any, About, Bounds | None]]:
    """Return the type, the words and the bounds of each field of what is asked."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found: dict[str, tuple[Any, About, Bounds | None]] = {}
    for one in fields(cls):
        marks = getattr(hints[one.name], "__metadata__", ())
        about = next((mark for mark in marks if isinstance(mark, About)), About(""))
        bounds = next((mark for mark in marks if isinstance(mark, Bounds)), None)
        found[one.name] = (hints[one.name].__origin__ if marks else hints[one.name], about, bounds)
    return found


def table_of(told: Any) -> dict[str, Any]:
    """Return what is told as plain values, None included."""
    table: dict[str, Any] = _plain(told)
    return table


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _files() -> list[Path]:
    folders = importlib.import_module(FOLDER).__path__
    return sorted(file for folder in folders for file in Path(folder).glob("*.py") if file.stem != "__init__")


@cache
def _declared(file: Path) -> dict[str, str]:
    """Return names and words of the operations in a file, without importing it."""
    found = {}
    for node in ast.parse(file.read_text("utf-8")).body:
        marks = node.decorator_list if isinstance(node, ast.FunctionDef) else ()
        for mark in marks:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "operation":
                assert isinstance(node, ast.FunctionDef) and isinstance(mark.args[0], ast.Constant)
                found[str(mark.args[0].value)] = (ast.get_docstring(node) or "").split("\n", 1)[0]
    return found
