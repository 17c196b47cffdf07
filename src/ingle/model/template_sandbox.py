"""The Jinja environment of chat templates: all that transformers offers them, without what could harm or hang the process.

Templates come with weights, from strangers. Beyond Jinja's own sandbox (no underscore attributes, nothing mutable), these are limited:
steps, time, output, ranges, operations that make one huge string in one step, and the total size of intermediate strings and lists.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, wraps
from threading import local
from types import FrameType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 500_000  # template lines run in one rendering; a thousand messages take some 30,000
MAX_CHARACTERS = 8_000_000  # characters of the output, and of any repeated string
MAX_RANGE = 10_000  # length of a range; the longest conversations have fewer messages
MAX_SPENT = 192_000_000  # characters that filters, methods, sums and joins may make in one rendering; an entry of a list counts as 64
MAX_NODES = 1_000_000  # entries of a table or list that is written out; the longest conversations have some thousands
MAX_SECONDS = 5.0  # seconds of one rendering; a thousand messages take some hundredths
_MAX_INDENT = 16
_FILENAME = "<template>"  # what Jinja calls a template that has no file
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "translate"}
_NEVER_USED = ("center", "format", "batch", "slice", "wordwrap", "urlize", "xmlattr", "pprint", "random")
_now_rendering = local()  # `spent`: the characters of this thread's rendering


class TooMuch(Exception):
    """A limit was reached."""


class ChatSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with limits on single steps."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse with every `~` as a filter, because it can't be intercepted."""
        tree: nodes.Template = _Joins().visit(super()._parse(source, name, filename))
        return tree

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call as Jinja does, with methods of strings within limits."""
        owner, bound = getattr(obj, "__self__", None), _BOUNDS.get(getattr(obj, "__name__", ""))
        if isinstance(owner, str) and bound is not None:
            args = bound(owner, *args)
        return _spend(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute sums and products within limits; no powers, no %-formatting of strings."""
        if operator == "+":
            return _spend(super().call_binop(context, operator, left, right))
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not available in chat templates")
        if operator == "*":
            sizes = [len(v) if isinstance(v, str | list | tuple) else int(abs(v)) for v in (left, right)]
            if sizes[0] * sizes[1] > MAX_CHARACTERS and not (isinstance(left, float) or isinstance(right, float)):
                raise TooMuch(f"a product of at most {MAX_CHARACTERS}")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what Jinja allows, without the methods that pad strings to any width."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def wrap_str_format(self, value: Any) -> Any:
        """Refuse `"…".format`: "{:9999999999}" is one step, too."""
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(getattr(value, "__self__", None), str):
            raise SecurityError("str.format is not available in chat templates")
        return super().wrap_str_format(value)


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's text for training; rendering only passes it on."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


@lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """Compile a template, ready to render. Raises jinja2.TemplateSyntaxError."""
    sandbox = ChatSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"], finalize=_shown)
    for name in _NEVER_USED:
        del sandbox.filters[name]
    del sandbox.globals["lipsum"]
    join, indent = _join_with(sandbox.filters["join"]), _indent_with(sandbox.filters["indent"])
    sandbox.filters |= {"tojson": _to_json, "replace": _replace, "join": join, "indent": indent}
    for name, function in sandbox.filters.items():
        sandbox.filters[name] = _counted(function)
    sandbox.filters[_CONCAT] = _concat
    sandbox.filters["string"] = _counted(lambda value: str(_shown(value)))
    sandbox.globals |= {"raise_exception": _raise, "strftime_now": _now, "range": _range}
    return sandbox.from_string(source)


def run(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """Render a template. Raises TooMuch, and whatever Jinja and the template raise."""
    parts, size = [], 0
    _now_rendering.spent = 0
    with _limited_steps():
        for part in template.generate(variables):
            size += len(part)
            if size > MAX_CHARACTERS:
                raise TooMuch(f"at most {MAX_CHARACTERS} characters of output")
            parts.append(part)
    return "".join(parts)


def line_of(error: BaseException) -> int | None:
    """Return the template's line of this error; Jinja rewrites tracebacks to hold it."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@contextmanager
def _limited_steps() -> Iterator[None]:
    """Count the lines that templates run in this thread, loops and macros too, and stop at MAX_STEPS. The clock is checked at each line,
    and at each function that a line calls."""
    steps, end = 0, time.monotonic() + MAX_SECONDS

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if time.monotonic() > end:
            raise TooMuch(f"{MAX_SECONDS:.0f} seconds")
        if frame.f_code.co_filename != _FILENAME:
            return None
        steps += 1
        if steps > MAX_STEPS:
            raise TooMuch(f"at most {MAX_STEPS} steps")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise TooMuch(f"a range of at most {MAX_RANGE}")
    return numbers


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    """Return JSON without the HTML escapes of Jinja's own filter, as transformers does."""
    if isinstance(indent, str) or (indent is not None and indent > _MAX_INDENT):
        raise TooMuch(f"an indent of at most {_MAX_INDENT}")
    _check_nodes(value)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


_CONCAT = "ingle_concat"


class _Joins(NodeTransformer):
    """Turns `a ~ b` into `[a, b] | ingle_concat`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's name for it
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes, lineno=node.lineno), _CONCAT, [], [], None, None, lineno=node.lineno)


def _concat(parts: list[Any]) -> Any:
    texts = [str(_shown(part)) for part in parts]
    _check_size(sum(map(len, texts)))
    return _spend("".join(texts))


def _check_size(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise TooMuch(f"a string of at most {MAX_CHARACTERS} characters")


def _shown(value: Any) -> Any:
    """Return a value that is to be written out. A list that holds another twice, and that one yet another twice, would never end."""
    if not isinstance(value, str):
        _check_nodes(value)
    return value


def _check_nodes(value: Any) -> None:
    """Count what a value holds as often as it would be written. Raises TooMuch."""
    left, waiting = MAX_NODES, [value]
    while waiting:
        value = waiting.pop()
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        left -= 1 + len(items)
        if left < 0:
            raise TooMuch(f"tables and lists of at most {MAX_NODES} entries")
        waiting += items


def _spend(value: Any) -> Any:
    """Count the value's size, and return it."""
    size = len(value) if isinstance(value, str) else 64 * len(value) if isinstance(value, list | tuple) else 0
    if size:
        _now_rendering.spent = getattr(_now_rendering, "spent", 0) + size
        if _now_rendering.spent > MAX_SPENT:
            raise TooMuch(f"{MAX_SPENT} characters on the way")
    return value


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        return _spend(function(*args, **kwargs))

    return counted


def _bound_replace(text: str, old: Any = "", new: Any = "", count: Any = -1) -> tuple[Any, ...]:
    times = text.count(str(old))
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    _check_size(len(text) + times * len(str(new)))
    return (old, new, count)


def _bound_join(text: str, parts: Any = ()) -> tuple[Any, ...]:
    parts = list(parts)
    _check_size(sum(len(part) for part in parts if isinstance(part, str)) + len(text) * len(parts))
    return (parts,)


_BOUNDS: dict[str, Callable[..., tuple[Any, ...]]] = {"replace": _bound_replace, "join": _bound_join}


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> Any:
    """Do Jinja's `replace` within limits."""
    text = str(text)
    return text.replace(*map(str, _bound_replace(text, old, new)[:2]), -1 if count is None else count)


def _join_with(join: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(join)
    def bounded(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        value = list(value)
        _check_size(sum(len(part) for part in value if isinstance(part, str)) + len(str(d)) * len(value))
        return join(context, value, d, attribute)

    return bounded


def _indent_with(indent: Callable[..., str]) -> Callable[..., str]:
    @wraps(indent)
    def bounded(text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
        wide, lines = len(width) if isinstance(width, str) else int(width), str(text).count("\n") + 1
        _check_size(len(str(text)) + wide * lines)
        return indent(text, width, first, blank)

    return bounded
