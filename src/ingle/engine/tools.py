"""Tools: functions that a model may call. They are checked, described in the model's own style, and enforced where a call is demanded.

Order: `check_tools`, then `with_tools` before `encode_chat`; `ToolCallStream` (tool_calls.py) reads the answer; `tool_constraint` forces a
call.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal
from weakref import WeakKeyDictionary

from ingle.core.errors import RequestError, TemplateError
from ingle.core.message import Constraint, Message, Part, TextPart, ToolCall
from ingle.engine.constraint import JSON_OPTIONS, check_constraint
from ingle.engine.tool_calls import CLOSE, OPEN, Style
from ingle.model.template import render, template_of
from ingle.model.tokenizer import Tokenizer

Tool = Mapping[str, Any]
"""A function in OpenAI's shape."""
Choice = Literal["none", "auto", "required"] | Mapping[str, Any]
"""OpenAI's `tool_choice`; a table names the one function to call."""
MOST_TOOLS = 128
MOST_CALLS = 16
"""Most calls in one answer that has to call: small models would go on without end."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
# What stands in the template of a model that learnt a style. Others write <tool_call> too, but something else than JSON into it.
_SIGNS: dict[Style, tuple[str, str]] = {
    "hermes": (OPEN, r'\\?"arguments\\?"\s*:'),
    "llama": (r'\\?"parameters\\?"\s*:', r"python_tag|ipython"),
}
# How a call is written: before its name, between name and arguments, after them, and between two calls.
_WRITTEN: dict[Style, tuple[str, str, str, str]] = {
    "hermes": (OPEN + '\n{"name": "', '", "arguments": ', "}\n" + CLOSE, "\n"),
    "llama": ('{"name": "', '", "parameters": ', "}", "; "),
}
_GREETING = "You are a helpful assistant."
_DESCRIPTION = f"""\
You can call functions. These are their signatures, one a line:
<tools>
%s
</tools>
To call a function, write its name and its arguments like this:
{OPEN}
{{"name": "name of the function", "arguments": {{"name of an argument": "value"}}}}
{CLOSE}
The result will come between <tool_response> and </tool_response>. If no function is needed, answer in words."""
_PROBE = "ingle_probe"


@dataclass(frozen=True, slots=True)
class _Habits:
    """Abilities of a chat template."""

    style: Style
    tells: bool
    """Whether it presents tools, calls and results in a style that we can read."""
    hears_system: bool
    """Whether it takes a system message."""


_habits: WeakKeyDictionary[Tokenizer, _Habits] = WeakKeyDictionary()


def style_of(tokenizer: Tokenizer) -> Style:
    """Return the model's style of calls: from its template, or ours; "none" for a model without a chat template."""
    return _habits_of(tokenizer).style


def with_tools(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """Return the messages and tools for the template, for checked tools.

    They are unchanged if it knows tools. Otherwise functions are described in the system message (or before the first user's message, if
    the template takes no system message), calls are written into the text, and results become a user's message.
    """
    habits = _habits_of(tokenizer)
    if habits.tells:
        return tuple(messages), tuple(tools)
    prepared: list[Message] = []
    for are_results, run in groupby(messages, lambda message: message.role == "tool"):
        if are_results:
            prepared.append(_results(run))
        else:
            prepared.extend(map(_written_out, run))
    if not tools:
        return tuple(prepared), ()
    functions = ({key: value for key, value in tool["function"].items() if key != "strict"} for tool in tools)
    text = _DESCRIPTION % "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    if not habits.hears_system:
        first = next((i for i, message in enumerate(prepared) if message.role == "user"), None)
        if first is None:
            return (Message.of("user", text), *prepared), ()
        prepared[first] = replace(prepared[first], parts=(TextPart(f"{text}\n\n", "system"), *prepared[first].parts))
    elif prepared and prepared[0].role == "system":
        prepared[0] = replace(prepared[0], parts=(*prepared[0].parts, TextPart(f"\n\n{text}")))
    else:
        prepared.insert(0, Message.of("system", f"{_GREETING}\n\n{text}"))
    return tuple(prepared), ()


def check_tools(tools: Sequence[Any]) -> None:
    """Raise RequestError for more than 128 tools, or one that is no function in OpenAI's shape.

    Its parameters must be a schema of an object. Parts that can't be enforced matter only in `tool_constraint`.
    """
    if len(tools) > MOST_TOOLS:
        raise RequestError("tools", f"must be at most {MOST_TOOLS}", len(tools), "Offer fewer tools.")
    names: set[str] = set()
    for i, tool in enumerate(tools):
        place = f"tools[{i}]"
        if not isinstance(tool, Mapping) or tool.get("type") != "function" or not isinstance(tool.get("function"), Mapping):
            raise RequestError(place, 'must be a table of "type": "function" and "function": a table', _short(tool))
        name, description = tool["function"].get("name"), tool["function"].get("description", "")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RequestError(f"{place}.function.name", "must be 1 to 64 letters, digits, '_' or '-'", _short(name))
        if name in names:
            raise RequestError(f"{place}.function.name", "must differ from the names of earlier tools", name)
        if not isinstance(description, str | None):
            raise RequestError(f"{place}.function.description", "must be a text", _short(description))
        names.add(name)
        _check_parameters(tool, place, lenient=True)


def tool_constraint(style: Style, tools: Sequence[Tool], choice: Choice, parallel: bool = True) -> Constraint | None:
    """Return the constraint for answers that call as `choice` demands: complete calls of checked tools in the model's style, and nothing
    else.

    "required" is one to 16 calls, or one if not `parallel`; a named function is called once. None if no call is demanded; for "none" the
    caller leaves the tools out. Raises RequestError for an unknown function, and for parameters that can't be enforced.
    """
    if choice in ("none", "auto"):
        return None
    chosen = _chosen(tools, choice)
    if style == "none":
        raise RequestError("tool_choice", "can't demand a call from a model without a chat template", choice)
    before, middle, after, between = _WRITTEN[style]
    rules = []
    for i in chosen:
        _check_parameters(tools[i], f"tools[{i}]", lenient=False)
        begin = json.dumps(before + tools[i]["function"]["name"] + middle)
        # A schema stays a text of its own, so that its references hold.
        schema = json.dumps({**_closed(_parameters(tools[i])), "x-guidance": JSON_OPTIONS})
        rules.append(f"call_{i}: {begin} %json {schema} {json.dumps(after)}")
    more = f" ({json.dumps(between)} call){{0,{MOST_CALLS - 1}}}" if parallel and choice == "required" else ""
    names = " | ".join(f"call_{i}" for i in chosen)
    return Constraint("lark", "\n".join([f"start: call{more}", f"call: {names}", *rules]))


def _chosen(tools: Sequence[Tool], choice: Choice) -> list[int]:
    """Return the numbers of the tools that may be called."""
    names = [tool["function"]["name"] for tool in tools]
    if choice == "required":
        if not names:
            raise RequestError("tool_choice", "can't demand a call without tools", choice)
        return list(range(len(names)))
    table = choice.get("function", choice) if isinstance(choice, Mapping) else None
    if not isinstance(table, Mapping) or (isinstance(choice, Mapping) and choice.get("type") != "function"):
        raise RequestError("tool_choice", 'must be "none", "auto", "required" or a function', _short(choice))
    if table.get("name") not in names:
        raise RequestError("tool_choice", f"must name one of {', '.join(names) or 'no tools'}", _short(table.get("name")))
    return [names.index(table["name"])]


def _parameters(tool: Tool) -> Mapping[str, Any]:
    """Return the schema of a function's arguments; one without parameters takes none."""
    return tool["function"].get("parameters") or _NOTHING


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Forbid arguments that the schema doesn't name, unless it mentions them: models would make some up."""
    speaks = schema.keys() & {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
    return schema if speaks or "properties" not in schema else {**schema, "additionalProperties": False}


def _check_parameters(tool: Tool, place: str, lenient: bool) -> None:
    field, schema = f"{place}.function.parameters", _parameters(tool)
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise RequestError(field, 'must be a JSON schema of "type": "object"', _short(schema))
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(field, "must be a JSON schema", error) from error
    check_constraint(Constraint("json_schema", text), field, lenient)


def _results(messages: Iterable[Message]) -> Message:
    """Return tool results as one user's message."""
    parts: list[Part] = []
    for message in messages:
        begin = TextPart("\n<tool_response>\n" if parts else "<tool_response>\n", "system")
        parts += [begin, *message.sourced, TextPart("\n</tool_response>", "system")]
    return Message("user", tuple(parts))


def _written_out(message: Message) -> Message:
    """Return the message with its calls written into its text."""
    calls = "\n".join(map(_call_text, message.tool_calls))
    return Message(message.role, (*message.parts, TextPart("\n" * bool(message.parts and message.text) + calls))) if calls else message


def _call_text(call: ToolCall) -> str:
    before, middle, after, _ = _WRITTEN["hermes"]
    try:
        json.loads(call.arguments)
        arguments = call.arguments
    except (ValueError, RecursionError):
        arguments = json.dumps(call.arguments)
    return before + call.name + middle + arguments + after


def _habits_of(tokenizer: Tokenizer) -> _Habits:
    habits = _habits.get(tokenizer)
    if habits is None:
        habits = _habits[tokenizer] = _probe(tokenizer)
    return habits


def _probe(tokenizer: Tokenizer) -> _Habits:
    """Find out by trying how the template treats a tool and a system message; find the style by its signs."""
    try:
        template = template_of(tokenizer)
    except TemplateError:
        return _Habits("none", False, False)
    question = Message.of("user", "?")
    tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": _NOTHING}}
    hears_system = _PROBE in _rendered(tokenizer, [Message.of("system", _PROBE), question], ())
    knows_tools = _PROBE in _rendered(tokenizer, [question], [tool])
    style = next((style for style, signs in _SIGNS.items() if all(re.search(sign, template) for sign in signs)), None)
    return _Habits(style, True, hears_system) if style and knows_tools else _Habits("hermes", False, hears_system)


def _rendered(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    try:
        return "".join(piece for piece in render(tokenizer, messages, tools=tools) if isinstance(piece, str))
    except TemplateError:
        return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
