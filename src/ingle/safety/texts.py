"""All texts of a request that a model will read, with place and speaker; and a request with its texts edited."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal

from ingle.core.errors import RequestError
from ingle.core.message import Message, Origin, Part, Request, TextPart, ToolCall

# The author of a text. Names and ids of calls are nobody's words: they belong to the tools.
Speaker = Origin | Literal["prompt", "tools"]
Edit = Callable[[str, Speaker, str], str]  # (text, speaker, place) → the new text
# Depth of nested tables. Schemas of real tools stay below 20, and templates render them by recursion.
MAX_DEPTH = 64


def utf8_bytes(text: str) -> int:
    """Return the length of a text in UTF-8; lone surrogates count too."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def message_texts(request: Request) -> Iterator[tuple[str, Speaker, str]]:
    """Yield (place, speaker, text) of the prompt or of the messages. A message's parts are one text, as templates join them."""
    if isinstance(request.prompt, str):
        yield "prompt", "prompt", request.prompt
    for i, message in enumerate(request.messages):
        yield f"messages[{i}].content", message.role, message.text
        yield from _call_texts(message, f"messages[{i}]")


def request_texts(request: Request) -> Iterator[tuple[str, Speaker, str]]:
    """Yield (place, origin, text) of the prompt, the messages, and all strings of the tools, keys too. Raises RequestError like `nodes`.

    A message's parts are separated by origin; neighbouring parts of one origin are one text.
    """
    if isinstance(request.prompt, str):
        yield "prompt", "prompt", request.prompt
    for i, message in enumerate(request.messages):
        text_parts = [part for part in message.sourced if isinstance(part, TextPart)]
        for origin, run in groupby(text_parts, lambda part: part.origin):
            yield f"messages[{i}].content", origin or message.role, "".join(part.text for part in run)
        yield from _call_texts(message, f"messages[{i}]")
    for i, tool in enumerate(request.tools):
        place = f"tools[{i}]"
        for node in nodes(tool, place):
            if isinstance(node, str):
                yield place, "tools", node


def _call_texts(message: Message, message_place: str) -> Iterator[tuple[str, Speaker, str]]:
    for j, call in enumerate(message.tool_calls):
        place = f"{message_place}.tool_calls[{j}]"
        yield f"{place}.id", "tools", call.id
        yield f"{place}.name", "tools", call.name
        yield f"{place}.arguments", message.role, call.arguments
    yield f"{message_place}.tool_call_id", "tools", message.tool_call_id


def nodes(table: object, place: str) -> Iterator[object]:
    """Yield every key and value of a table as JSON has them, the tables and lists too.

    Raises RequestError for values that JSON does not have, and for tables nested deeper than MAX_DEPTH.
    """
    waiting: list[tuple[object, int]] = [(table, 0)]  # no recursion: this is what protects the recursions that come after
    while waiting:
        value, depth = waiting.pop()
        yield value
        if value is None or isinstance(value, str | int | float):
            continue
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            inner = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            inner = list(value)
        else:
            raise RequestError(place, "must hold strings, numbers, lists, and tables with strings as keys", type(value).__name__)
        if depth == MAX_DEPTH:
            raise RequestError(place, f"must not be nested more than {MAX_DEPTH} deep", "more")
        waiting += [(item, depth + 1) for item in inner]


def with_texts(request: Request, edit: Edit) -> Request:
    """Return the request with every text that `request_texts` lists put through `edit`; each part of a message by itself."""
    prompt = edit(request.prompt, "prompt", "prompt") if isinstance(request.prompt, str) else request.prompt
    messages = tuple(_message(message, f"messages[{i}]", edit) for i, message in enumerate(request.messages))
    tools = tuple(_value(tool, f"tools[{i}]", edit) for i, tool in enumerate(request.tools))
    return replace(request, prompt=prompt, messages=messages, tools=tools)


def _message(message: Message, place: str, edit: Edit) -> Message:
    def part(old: Part) -> Part:
        return replace(old, text=edit(old.text, message.role, f"{place}.content")) if isinstance(old, TextPart) else old

    parts = tuple(map(part, message.parts))
    calls = tuple(
        ToolCall(
            edit(call.id, "tools", f"{place}.tool_calls[{j}].id"),
            edit(call.name, "tools", f"{place}.tool_calls[{j}].name"),
            edit(call.arguments, message.role, f"{place}.tool_calls[{j}].arguments"),
        )
        for j, call in enumerate(message.tool_calls)
    )
    answers = edit(message.tool_call_id, "tools", f"{place}.tool_call_id")
    return replace(message, parts=parts, tool_calls=calls, tool_call_id=answers)


def _value(value: Any, place: str, edit: Edit) -> Any:
    if isinstance(value, str):
        return edit(value, "tools", place)
    if isinstance(value, Mapping):
        return {edit(key, "tools", place): _value(item, place, edit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, place, edit) for item in value]
    return value
