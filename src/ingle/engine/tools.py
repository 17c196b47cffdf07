"""Functions that a model may ask for: checked, told to it in the style that it knows, and, where a call is demanded, enforced.

`check_tools` comes first, `with_tools` before `encode_chat`; `ToolCallStream` (tool_calls.py) reads the answer; `tool_constraint`
makes a call certain.
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
"""OpenAI's `tool_choice`; a table names the one function that is to be called."""
MOST_TOOLS = 128
MOST_CALLS = 16
"""In one answer that has to call: small models would go on without end."""
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
    """What a chat template does."""

    style: Style
    tells: bool
    """Whether it tells the model of tools, calls and results, in a style that we can read."""
    hears_system: bool
    """Whether it takes a system message."""


_habits: WeakKeyDictionary[Tokenizer, _Habits] = WeakKeyDictionary()


def style_of(tokenizer: Tokenizer) -> Style:
    """How this model writes calls: as its template says, else as we tell it; "none" for a model without a chat template."""
    return _habits_of(tokenizer).style


def with_tools(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """The messages and tools to give to the template, for checked tools.

    As they are if it knows tools. Else the functions are described in the system message (before the first user's message, if the
    template takes no other), calls are written into the text, and results become a user's message.
    """
    habits = _habits_of(tokenizer)
    if habits.tells:
        return tuple(messages), tuple(tools)
    told: list[Message] = []
    for are_results, run in groupby(messages, lambda message: message.role == "tool"):
        if are_results:
            told.append(_results(run))
        else:
            told.extend(map(_written_out, run))
    if not tools:
        return tuple(told), ()
    functions = ({key: value for key, value in tool["function"].items() if key != "strict"} for tool in tools)
    text = _DESCRIPTION % "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    if not habits.hears_system:
        first = next((i for i, message in enumerate(told) if message.role == "user"), None)
        if first is None:
            return (Message.of("user", text), *told), ()
        told[first] = replace(told[first], parts=(TextPart(f"{text}\n\n", "system"), *told[first].parts))
    elif told and told[0].role == "system":
        told[0] = replace(told[0], parts=(*told[0].parts, TextPart(f"\n\n{text}")))
    else:
        told.insert(0, Message.of("system", f"{_GREETING}\n\n{text}"))
    return tuple(told), ()


def check_tools(tools: Sequence[Any]) -> None:
    """Raises RequestError for more than 128 tools, or one that is no function in OpenAI's shape.

    Its parameters must be a schema of an object. What of it can't be enforced matters only where it will be: see `tool_constraint`.
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
            raise RequestError(f"{place}.function.name", "must be another than those of the tools before it", name)
        if not isinstance(description, str | None):
            raise RequestError(f"{place}.function.description", "must be a text", _short(description))
        names.add(name)
        _check_parameters(tool, place, lenient=True)


def tool_constraint(style: Style, tools: Sequence[Tool], choice: Choice, parallel: bool = True) -> Constraint | None:
    """The language of answers that call as `choice` demands: whole calls of checked tools in the model's style, and nothing else.

    "required" is one to 16 calls, or one if not `parallel`; a named function is called once. None where nothing is demanded; for
    "none" the caller leaves the tools out. Raises RequestError for an unknown function, and for parameters that can't be enforced.
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
    """Which of the tools may be called."""
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
    """The schema of a function's arguments; one without parameters takes none."""
    return tool["function"].get("parameters") or _NOTHING


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema without arguments that it does not name, unless it says something of them: models would make them up."""
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
    """What functions gave back, as a user's message."""
    parts: list[Part] = []
    for message in messages:
        begin = TextPart("\n<tool_response>\n" if parts else "<tool_response>\n", "system")
        parts += [begin, *message.sourced, TextPart("\n</tool_response>", "system")]
    return Message("user", tuple(parts))


def _written_out(message: Message) -> Message:
    """The message with its calls in its text."""
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
    found = _habits.get(tokenizer)
    if found is None:
        found = _habits[tokenizer] = _look(tokenizer)
    return found


def _look(tokenizer: Tokenizer) -> _Habits:
    """What the template does with a tool and with a system message, by trying; the style by its signs."""
    try:
        template = template_of(tokenizer)
    except TemplateError:
        return _Habits("none", False, False)
    asked = Message.of("user", "?")
    tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": _NOTHING}}
    hears_system = _PROBE in _said(tokenizer, [Message.of("system", _PROBE), asked], ())
    knows_tools = _PROBE in _said(tokenizer, [asked], [tool])
    style = next((style for style, signs in _SIGNS.items() if all(re.search(sign, template) for sign in signs)), None)
    return _Habits(style, True, hears_system) if style and knows_tools else _Habits("hermes", False, hears_system)


def _said(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    try:
        return "".join(piece for piece in render(tokenizer, messages, tools=tools) if isinstance(piece, str))
    except TemplateError:
        return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
