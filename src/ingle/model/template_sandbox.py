"""The Jinja environment in which chat templates run: what transformers offers them, without what could harm or hang the house.

A template comes with the weights, from whoever made them. Beyond Jinja's own sandbox (no underscore attributes, nothing mutable), steps,
output and ranges are limited, and so is what could make one huge string in one step. What remains: some twenty doublings of a string,
written out one after the other, still cost memory.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from types import FrameType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 500_000
"""Template lines run in one rendering; a thousand messages take some 30,000."""
MAX_CHARACTERS = 8_000_000
"""Of output, and of any repeated string."""
MAX_RANGE = 10_000
"""Length of a range; the longest conversations have fewer messages."""
_FILENAME = "<template>"  # what Jinja calls a template that has no file
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs"}


class TooMuch(Exception):
    """A limit was reached."""


class ChatSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with limits on single steps."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplication within bounds; no powers, no %-formatting of strings."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not available in chat templates")
        if operator == "*":
            sizes = [len(v) if isinstance(v, str | list | tuple) else int(abs(v)) for v in (left, right)]
            if sizes[0] * sizes[1] > MAX_CHARACTERS and not (isinstance(left, float) or isinstance(right, float)):
                raise TooMuch(f"a product of at most {MAX_CHARACTERS}")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """What Jinja allows, without the methods that pad strings to any width."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def wrap_str_format(self, value: Any) -> Any:
        """No `"…".format`: "{:9999999999}" is one step, too."""
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(getattr(value, "__self__", None), str):
            raise SecurityError("str.format is not available in chat templates")
        return super().wrap_str_format(value)


class _GenerationTag(Extension):
    """`{% generation %}` marks what the assistant said, for training; rendering only passes it on."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


@lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """The template, ready to render. Raises jinja2.TemplateSyntaxError."""
    sandbox = ChatSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"])
    for name in ("center", "format"):
        del sandbox.filters[name]
    del sandbox.globals["lipsum"]
    sandbox.filters["tojson"] = _to_json
    sandbox.globals |= {"raise_exception": _raise, "strftime_now": _now, "range": _range}
    return sandbox.from_string(source)


def run(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """The rendered text. Raises TooMuch, and whatever Jinja and the template raise."""
    parts, size = [], 0
    with _limited_steps():
        for part in template.generate(variables):
            size += len(part)
            if size > MAX_CHARACTERS:
                raise TooMuch(f"at most {MAX_CHARACTERS} characters of output")
            parts.append(part)
    return "".join(parts)


def line_of(error: BaseException) -> int | None:
    """The template's line at which this error arose; Jinja rewrites tracebacks so that they say it."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@contextmanager
def _limited_steps() -> Iterator[None]:
    """Counts the lines that templates run in this thread, and stops them at MAX_STEPS; loops and macros alike."""
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
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
    """JSON without the HTML escapes of Jinja's own filter, as transformers does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
