"""Constraints on answers, checked and limited for the library llguidance: hostile ones cost little and crash nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from ingle.core.errors import Busy, RequestError
from ingle.core.message import Constraint

if TYPE_CHECKING:
    from llguidance import LLParserLimits
    from llguidance._lib import JsonCompileOptions

T = TypeVar("T")
FIELDS = {"json_schema": "response_format", "json_object": "response_format", "lark": "grammar", "regex": "grammar"}
NOUNS = {"json_schema": "a JSON schema", "json_object": "a JSON schema", "lark": "a Lark grammar", "regex": "a regular expression"}
_MOST_BYTES = {"json_schema": 64 << 10, "json_object": 64 << 10, "lark": 256 << 10, "regex": 64 << 10}
JSON_OPTIONS: "JsonCompileOptions" = {
    # Small models fill free whitespace without end. One space is what they learnt to write after ',' and ':'; no other is needed.
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    # Without \uXXXX every key has one spelling. With it, a free key could be a named one in disguise, and escape its schema.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
"""Our JSON spelling, as options of llguidance."""
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 50_000,  # 5 ms of work for one token
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "max_grammar_size": 300_000,
}
_STACK_BYTES = 512 << 20  # of address space, not memory; see `on_deep_stack`
_stack_lock = threading.Lock()


def check_constraint(constraint: Constraint, field: str = "", lenient: bool = False) -> None:
    """Raise RequestError as `Grammar` does, but without a model. `lenient` ignores parts that can't be enforced."""
    field = field or FIELDS[constraint.kind]
    fault = _fault(grammar_source(constraint, field, lenient), field)
    if fault and not (lenient and fault.startswith("WARNING")):
        raise RequestError(field, f"must be {NOUNS[constraint.kind]} that can be enforced", fault)


@lru_cache(64)
def _fault(source: str, field: str) -> str:
    """Return what is wrong with a grammar; empty if nothing is. Cached, because clients send the same one with every request."""
    from llguidance import LLMatcher

    def validate() -> tuple[bool, list[str]]:
        return LLMatcher.validate_grammar_with_warnings(source, None, limits=parser_limits())

    bad, messages = on_deep_stack(validate, field)
    return ("" if bad else "WARNING: ") + one_line(messages[0]) if messages else ""


def holds_json(constraint: Constraint) -> bool:
    """Return whether answers to it are JSON, or calls with JSON in them."""
    return constraint.kind in ("json_schema", "json_object") or (constraint.kind == "lark" and "%json" in constraint.source)


def grammar_source(constraint: Constraint, field: str, lenient: bool = False) -> str:
    """Return the grammar for llguidance. Raises RequestError for one that is too long or no schema at all."""
    from llguidance import LLMatcher

    most = _MOST_BYTES[constraint.kind]
    try:
        size = len(constraint.source.encode())
    except UnicodeEncodeError as error:
        raise RequestError(field, "must be valid Unicode", "a lone surrogate") from error
    if size > most:
        raise RequestError(field, f"must be at most {most:,} bytes", f"{size:,} bytes")
    if constraint.kind == "lark":
        return LLMatcher.grammar_from_lark(constraint.source)
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    schema = {"type": "object"} if constraint.kind == "json_object" else _schema(constraint.source, field, lenient)
    try:
        options: JsonCompileOptions = {**JSON_OPTIONS, "lenient": lenient}
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
    except ValueError as error:
        raise RequestError(field, "must be a JSON schema", one_line(str(error))) from error


def _schema(text: str, field: str, lenient: bool) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(field, "must be a JSON schema", one_line(str(error))) from error
    if not isinstance(schema, dict):
        raise RequestError(field, "must be a JSON schema that is a table", one_line(text))
    if "x-guidance" in schema:
        raise RequestError(field, "must be a JSON schema without settings for the library that enforces it", "x-guidance")
    for table in () if lenient else _tables(schema):
        # Keys of one's own may come twice, and count as one for whoever reads them.
        least, required = table.get("minProperties"), table.get("required", [])
        if isinstance(least, int) and least > 1 and isinstance(required, list) and least > len(required):
            raise RequestError(field, "must not require more keys than it names", f"minProperties: {least}")
    return schema


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all tables in a schema except those in its examples, in no order."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += [item for key, item in value.items() if key not in ("enum", "const", "default", "examples")]
        elif isinstance(value, list):
            left += value


def parser_limits() -> "LLParserLimits":
    """Return the limits of what a grammar may cost."""
    from llguidance import LLParserLimits

    return LLParserLimits(**_LIMITS, verbose_errors=False)  # type: ignore[arg-type]


def on_deep_stack(work: Callable[[], T], field: str) -> T:
    """Run `work` in a thread with room for deep recursion, and return its result.

    The compiler recurses along a chain of rules or schemas, about 5 kB a link, and a small stack would crash the process. A compiled
    grammar may be used anywhere. Raises Busy if the system has no room for the thread.
    """
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as fault:  # panics of the library are no Exceptions
            faults.append(fault)

    thread = threading.Thread(target=run, name="grammar")
    with _stack_lock:
        before = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        except RuntimeError as error:
            raise Busy(field, "can't be read for lack of memory", error) from error
        finally:
            threading.stack_size(before)
    thread.join()
    if faults:
        raise RequestError(field, "must be a grammar that the library can read", one_line(str(faults[0]))) from faults[0]
    return results[0]


def one_line(message: str) -> str:
    """Return the line of a library's message that says what is wrong."""
    if message.startswith("NoExtension"):
        return "no text fits it"
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    return reason if len(reason) <= 200 else f"{reason[:199]}…"
