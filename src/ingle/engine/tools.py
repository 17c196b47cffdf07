"""Tools: functions that a model may call. They are checked, described in the model's own style, and enforced where a call is demanded.

Order: `check_tools`, then `with_tools` before `encode_chat`; `ToolCallStream` reads the answer; `tool_constraint` forces a
call.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NoReturn
from weakref import WeakKeyDictionary

from ingle.core.errors import RequestError, TemplateError
from ingle.core.message import Constraint, Message, Part, TextPart, ToolCall
from ingle.engine.grammar import JSON_OPTIONS, check_constraint
from ingle.model.template import render, template_of
from ingle.model.tokenizer import Tokenizer

# Parse tool calls from an answer's text as it streams: returns text to show and complete calls.
# | style | what a call looks like | who writes so |
# |---|---|---|
# | hermes | `<tool_call>` {"name": …, "arguments": {…}} `</tool_call>`, anywhere, any number | Hermes, Qwen 2.5 and 3, our own style |
# | llama | {"name": …, "parameters": {…}} as the whole answer; several with ";" between | Llama 3.1 to 3.3 |
# | none | there are none | |
# Only what may still become a call is held back. What turns out to be none is given back as the text that it is. White space around a call
# belongs to the call. Source: the models' chat templates, and which answers vLLM's parsers of the same names take for calls.


Style = Literal["hermes", "llama", "none"]
Piece = str | ToolCall
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_PYTHON_TAG = "<|python_tag|>"  # a control token, and so not in the text, unless a vocabulary has it as a word
_BEFORE_FIRST = re.compile(rf"\s*(?:{re.escape(_PYTHON_TAG)}\s*)?")
_BETWEEN = re.compile(rf"\s*(?:;\s*)?(?:{re.escape(_PYTHON_TAG)}\s*)?")
_LLAMA_KEYS = {"name", "parameters", "arguments", "type", "id"}
_AROUND = " \n\r\t;"
_SPACE = re.compile(r"[ \t\n\r]*")
_QUOTE_OR_CLOSE, _QUOTE_OR_BRACE = re.compile(f'"|{CLOSE}'), re.compile(r'["{}]')
_WITHIN_STRING = re.compile(r'(?:[^"\\\x00-\x1f]|\\.)*+')


def new_call_id() -> str:
    """Return a new call id in OpenAI's format."""
    return f"call_{secrets.token_hex(12)}"


class ToolCallStream:
    """Finds the calls in one answer. The result does not depend on how the answer is cut."""

    def __init__(self, style: Style, new_id: Callable[[], str] = new_call_id) -> None:
        self._step = {"hermes": self._hermes, "llama": self._llama, "none": self._plain}[style]
        self._new_id = new_id
        self._held = ""
        self._calls = 0
        self._after_call = self._only_text = False
        self._marks: _Marks | None = None
        self._depth = 0
        self._written = list[str]()

    def feed(self, text: str) -> list[Piece]:
        """Take in text; return what can be shown and the complete calls. Raises nothing."""
        return self._advance(text, final=False)

    def flush(self) -> list[Piece]:
        """Return the text that was held back, at the end of the answer. Raises nothing."""
        return self._advance("", final=True)

    @property
    def in_call(self) -> bool:
        """Whether what is held back may be a call whose beginning has come."""
        return self._marks is not None

    @property
    def after_call(self) -> bool:
        """Whether nothing followed the last call."""
        return self._after_call

    def repeats(self, text: str) -> bool:
        """Return whether the text is the beginning of a call that this answer has already made."""
        return any(call.startswith(text.strip(_AROUND)) for call in self._written)

    def _advance(self, text: str, final: bool) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while True:
            if self._after_call:
                self._held = self._held.lstrip()
            before = len(self._held)
            piece = self._step(self._held, final) if before else ""
            if len(self._held) == before:
                return pieces
            if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
                pieces[-1] += piece
            else:
                pieces.append(piece)

    def _show(self, length: int) -> str:
        """Give out so many characters as text; none means that more must come to decide."""
        text, self._held = self._held[:length], self._held[length:]
        if length:
            self._after_call, self._marks = False, None
        return text

    def _call(self, read: tuple[str, str], length: int) -> ToolCall:
        """Give out so many characters as a call."""
        self._written.append(self._held[:length].strip(_AROUND))
        self._held, self._after_call, self._marks, self._calls = self._held[length:], True, None, self._calls + 1
        return ToolCall(self._new_id(), *read)

    def _plain(self, held: str, _final: bool) -> Piece:
        return self._show(len(held))

    def _hermes(self, held: str, final: bool) -> Piece:
        start = held.find(OPEN)
        if start < 0:
            return self._show(len(held) if final else len(held[: len(held) - _overlap(held)].rstrip()))
        if spoken := held[:start].rstrip():
            return self._show(len(spoken))
        begin = start + len(OPEN)
        brace = _space(held, begin)
        if held[brace : brace + 1] not in ("", "{"):
            return self._show(begin)
        self._marks = self._marks or _Marks(_QUOTE_OR_CLOSE, begin)
        mark = self._marks.next(held)
        if mark is None and not final:
            return self._show(0)
        # The end of the answer ends a call too.
        end = self._marks.at if mark else len(held)
        inside = held[begin : end - len(mark)] if mark else held[begin : end - _overlap(held, CLOSE)]
        read = read_call(inside) if mark != "" else None
        return self._call(read, end) if read else self._show(begin)

    def _llama(self, held: str, final: bool) -> Piece:
        before = (_BETWEEN if self._calls else _BEFORE_FIRST).match(held)
        start = before.end() if before else 0
        possible = not self._only_text and _may_be_llama_call(held[start : start + 100])
        if possible:
            self._marks = self._marks or _Marks(_QUOTE_OR_BRACE, start)
            while mark := self._marks.next(held):
                self._depth += 1 if mark == "{" else -1
                if self._depth == 0:
                    break
            if mark is None and not final:
                return self._show(0)
            if mark and (read := read_call(held[start : self._marks.at], _LLAMA_KEYS)):
                return self._call(read, self._marks.at)
        elif not self._only_text and not final and _PYTHON_TAG.startswith(held[start:]):
            return self._show(0)
        self._only_text = True
        return self._show(len(held))


class CallsMade:
    """The calls of one answer. Small models repeat the same one again and again."""

    def __init__(self) -> None:
        self._seen = set[tuple[str, str]]()

    def add(self, call: ToolCall) -> bool:
        """Return whether the call is new: no other had this name and these arguments."""
        key = (call.name, json.dumps(_read(call.arguments), sort_keys=True))
        new = key not in self._seen
        self._seen.add(key)
        return new


class _Marks:
    """Finds marks outside of JSON strings in a growing text. Looks at every character once."""

    def __init__(self, pattern: re.Pattern[str], at: int) -> None:
        self._pattern, self.at, self._in_string = pattern, at, False

    def next(self, text: str) -> str | None:
        """Return the mark that now ends at `at`; None if there is none yet, an empty one if a string is broken."""
        while True:
            if not self._in_string:
                match = self._pattern.search(text, self.at)
                if not match:
                    self.at = max(self.at, len(text) - len(CLOSE) + 1)
                    return None
                self.at = match.end()
                if match.group() != '"':
                    return match.group()
                self._in_string = True
            within = _WITHIN_STRING.match(text, self.at)
            self.at = within.end() if within else self.at
            if self.at == len(text) or (self.at == len(text) - 1 and text[self.at] == "\\"):
                return None
            if text[self.at] != '"':
                return ""
            self.at, self._in_string = self.at + 1, False


def read_call(text: str, keys: set[str] | None = None) -> tuple[str, str] | None:
    """Return name and arguments (JSON, as written) of a call; None if the text is no call. Raises nothing.

    `keys`: all keys that a call may have, where only these tell it from other JSON; it must then have arguments.
    """
    try:
        members = dict(_members(text))
        name = json.loads(members["name"])
        written = members.get("arguments", members.get("parameters"))
        if written is None and keys:
            return None
        arguments = _read(written or "null")
        if isinstance(arguments, str):  # JSON within a string, as in OpenAI's own tables
            written, arguments = arguments, _read(arguments)
    except (ValueError, KeyError, RecursionError):
        return None
    if arguments is None:
        written, arguments = "{}", {}
    is_call = isinstance(name, str) and name and isinstance(arguments, dict) and (keys is None or members.keys() <= keys)
    return (name, written) if is_call and written else None


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of a JSON object and their values as written. Raises ValueError for anything else."""
    at, mark = _space(text, 0), "{"
    while text[at : at + 1] == mark:
        key, at = _DECODER.raw_decode(text, _space(text, at + 1))
        colon = _space(text, at)
        if not isinstance(key, str) or text[colon : colon + 1] != ":":
            raise ValueError(text)
        start = _space(text, colon + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield key, text[start:end]
        at, mark = _space(text, end), ","
    if mark == "{" or text[at : at + 1] != "}" or _space(text, at + 1) != len(text):
        raise ValueError(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN and Infinity are no JSON


def _read(text: str) -> Any:
    return _DECODER.decode(text)


def _space(text: str, at: int) -> int:
    """Return the end of the white space that begins at `at`."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _overlap(text: str, mark: str = OPEN) -> int:
    """Return the length of the longest end of the text with which the mark could begin."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def _may_be_llama_call(text: str) -> bool:
    """Return whether this begins (or may begin) an object whose first key is one that calls have."""
    key = text[1:].lstrip()
    return not text or (text[0] == "{" and any(f'"{name}"'.startswith(key) or key.startswith(f'"{name}"') for name in _LLAMA_KEYS))


Tool = Mapping[str, Any]  # a function in OpenAI's shape
Choice = Literal["none", "auto", "required"] | Mapping[str, Any]  # OpenAI's `tool_choice`; a table names the one function to call
MOST_TOOLS = 128
MOST_CALLS = 16  # most calls in one answer that has to call: small models would go on without end
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
    tells: bool  # whether it presents tools, calls and results in a style that we can read
    hears_system: bool  # whether it takes a system message


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
