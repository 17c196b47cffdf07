"""Encode a conversation by the model's chat template, so that nothing anyone typed becomes a control token.

How: in every string that goes into the template, the names of control tokens are broken by a *marker*, a private-use character that
occurs nowhere in the input. The rendered text is cut at the control tokens that are still whole (the template's own), and only then are
the markers taken out. So "<|im_end|>" in a message stays ten characters of text, wherever the template puts it.

A picture is written by templates that know pictures, in their own way. For others, one more private-use character holds its place in the
message's text. It comes out as the piece PICTURE, which nobody can type either.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingle.core.errors import RequestError, TemplateError
from ingle.core.message import ImagePart, Message, TextPart, ToolCall
from ingle.model.tokenizer import PICTURE, ControlToken, Tokenizer

Turn = Message | Mapping[str, Any]  # a message, or a table in OpenAI's shape (`role`, `content`, `tool_calls`, …)
THINKING = "enable_thinking"  # the switch of templates by which a model thinks aloud first, or doesn't
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Turn],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the ids of a conversation. `variables` are the template's own switches, e.g. `enable_thinking`.

    Raises TemplateError for a template that is missing, fails or tries something forbidden; RequestError for messages that hold more than
    words (see engine/language_model.py for pictures).
    """
    if any(isinstance(message, Message) and not all(isinstance(part, TextPart) for part in message.parts) for message in messages):
        raise RequestError("messages", "must be text here", "a picture or a recording")
    if tokenizer.apart is not None:
        turns = [_table(message) for message in messages]
        ids: list[int] = tokenizer.apart.call("encode_chat", turns, add_generation_prompt, tools, variables)
        return ids
    return tokenizer.encode_pieces(render(tokenizer, messages, add_generation_prompt, tools, variables))


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Turn],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> tuple[str | ControlToken, ...]:
    """Render a conversation: stretches of untrusted text between control tokens, and PICTURE for each picture that the template leaves to
    us. Raises like `encode_chat`."""
    source, tables = template_of(tokenizer), [_table(message) for message in messages]
    if tokenizer.apart is not None:
        pieces: tuple[str | ControlToken, ...] = tokenizer.apart.call("render", tables, add_generation_prompt, tools, variables)
        return pieces
    inputs = [tables, list(tools) if tools else None, dict(variables or {})]
    picture = ""
    try:
        if _takes_parts(source):
            inputs[0] = [_in_parts(table, source) for table in tables]
        elif any(isinstance(table.get("content"), list) for table in tables):
            picture = _unused_character([source, *tokenizer.control, *_strings(inputs)])
            inputs[0] = [_flat(table, picture) for table in tables]
        marker = _unused_character([source, picture, *tokenizer.control, *_strings(inputs)])
        codes = _codes(tokenizer.control, [source, marker, *tokenizer.control, *_strings(inputs)])
        turns, tools_given, extra = (_broken(value, tokenizer.control, marker, codes) for value in inputs)
    except RecursionError as error:
        raise RequestError("messages", "must not be nested this deeply", "hundreds of tables within tables") from error
    names = {"messages": turns, "tools": tools_given, "documents": None, "add_generation_prompt": add_generation_prompt}
    text = _run(source, {**_specials(tokenizer), **extra, **names})
    stand_for = {marker: "", **{code: name for name, code in codes.items()}}

    def typed(piece: str) -> str:
        for stand_in, meant in stand_for.items():
            escaped, meant_escaped = json.dumps(stand_in)[1:-1], json.dumps(meant)[1:-1]  # what `tojson(ensure_ascii=true)` makes of them
            piece = piece.replace(stand_in, meant).replace(escaped, meant_escaped)
        return piece

    typed_pieces = (piece if isinstance(piece, ControlToken) else typed(piece) for piece in tokenizer.split_control(text))
    return tuple(part for piece in typed_pieces for part in _around(piece, picture) if part != "")


def _around(piece: str | ControlToken, picture: str) -> Iterator[str | ControlToken]:
    """Yield a piece, its places of pictures by themselves."""
    if not picture or isinstance(piece, ControlToken):
        yield piece
        return
    for i, text in enumerate(piece.split(picture)):
        if i:
            yield PICTURE
        yield text


def template_of(tokenizer: Tokenizer) -> str:
    """Return the model's chat template; ChatML for a model without one that has ChatML's control tokens. Raises TemplateError otherwise."""
    if tokenizer.facts.chat_template:
        return tokenizer.facts.chat_template
    if {"<|im_start|>", "<|im_end|>"} <= tokenizer.control.keys():
        return CHATML
    raise TemplateError(
        "chat template", "This model has no chat template", "", "It continues plain text: give a prompt instead of messages."
    )


def can_think(tokenizer: Tokenizer) -> bool:
    """Return whether the model thinks aloud, or not, as it is told: Qwen 3, SmolLM3 and others."""
    return has_template(tokenizer) and THINKING in template_of(tokenizer)


def has_template(tokenizer: Tokenizer) -> bool:
    """Return whether the model takes conversations; without a template, it continues plain text."""
    try:
        return bool(template_of(tokenizer))
    except TemplateError:
        return False


def _run(source: str, variables: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError as JinjaError
    from jinja2 import TemplateSyntaxError

    from ingle.model.template_sandbox import TooMuch, compile_template, line_of, run

    try:
        return run(compile_template(source), dict(variables))
    except TooMuch as error:
        raise TemplateError(_place(line_of(error)), f"must stay within {error}") from error
    except TemplateSyntaxError as error:
        raise TemplateError(_place(error.lineno), "must be valid Jinja", error.message) from error
    except SyntaxError as error:  # of the Python that Jinja makes of it: too many loops within loops, a break outside of one
        raise TemplateError("chat template", "must be valid Jinja", error.msg) from error
    except JinjaError as error:
        rule = "refuses these messages or tries what a template must not"
        raise TemplateError(_place(line_of(error)), rule, error.message) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise TemplateError(_place(line_of(error)), "fails on these messages", repr(error)[:200]) from error


def _place(line: int | None) -> str:
    return f"chat template, line {line}" if line else "chat template"


_KNOWS_PARTS = re.compile(r"""['"]image['"]|['"]equalto['"],\s*['"]text['"]""")
_KNOWS_STRINGS = re.compile(r"""content['"]?\]?\s+is\s+string""")


def _takes_parts(source: str) -> bool:
    """Return whether a template takes content as a list of parts: it writes pictures by itself, or picks the parts that are text."""
    return bool(_KNOWS_PARTS.search(source))


def _in_parts(table: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a message with its content as a list of parts, where the template knows no other."""
    content = table.get("content")
    return (
        {**table, "content": [{"type": "text", "text": content}]}
        if isinstance(content, str) and not _KNOWS_STRINGS.search(source)
        else table
    )


def _flat(table: dict[str, Any], picture: str) -> dict[str, Any]:
    """Return a message with its content as one text, `picture` in each picture's place."""
    content = table.get("content")
    if not isinstance(content, list) or not all(part == {"type": "image"} or isinstance(part.get("text"), str) for part in content):
        return table  # a caller's own table, in a shape that its template may know
    return {**table, "content": "".join(part.get("text", picture) for part in content)}


def _table(message: Turn) -> dict[str, Any]:
    if isinstance(message, Message):
        table: dict[str, Any] = {"role": message.role, "content": _content(message)}
        # Templates ask whether these are there at all.
        if message.tool_calls:
            table["tool_calls"] = [_call_table(call) for call in message.tool_calls]
        if message.tool_call_id:
            table["tool_call_id"] = message.tool_call_id
        return table
    # An absent key and a null mean the same to people, but not to templates, which print "None".
    return {key: value for key, value in message.items() if value is not None}


def _content(message: Message) -> str | list[dict[str, str]]:
    """Return the text of a message, or its parts where one of them is a picture. Raises RequestError for a recording."""
    if all(isinstance(part, TextPart) for part in message.parts):
        return message.text
    if not all(isinstance(part, TextPart | ImagePart) for part in message.parts):
        raise RequestError("messages", "A model reads words and pictures; this recording was not heard", "", "Send it to a running server.")
    return [{"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"} for part in message.parts]


def _call_table(call: ToolCall) -> dict[str, Any]:
    """Return a call in OpenAI's shape, with its arguments as a table, because templates write them as JSON; as text if they are no JSON."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _specials(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the template names of the tokens that begin and end."""
    ends = tokenizer.facts.eos_ids
    ids = {"bos_token": tokenizer.bos_id, "eos_token": ends[0] if ends else None, "unk_token": tokenizer.facts.unknown_id}
    return {name: tokenizer.fast.id_to_token(token) or "" for name, token in ids.items() if token is not None}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _unused_character(texts: list[str]) -> str:
    """Return a private-use character that is not in the texts, neither plain nor as JSON spells it."""
    for code in range(0xE000, 0xF8FF):
        character = chr(code)
        if not any(character in text or f"\\u{code:04x}" in text for text in texts):
            return character
    raise RequestError("messages", "must leave one private-use character free", "all 6,399 of them")


def _codes(names: Mapping[str, int], texts: list[str]) -> dict[str, str]:
    """Return stand-ins for typed one-character names, which can't be broken: a private-use character for each that is in no text."""
    codes = dict[str, str]()
    for name in names:
        if len(name) == 1:
            codes[name] = _unused_character([*texts, *codes.values()])
    return codes


def _broken(value: Any, names: Mapping[str, int], marker: str, codes: Mapping[str, str]) -> Any:
    """Return plain tables, lists and values with their strings broken by the marker, or coded. Raises RequestError for anything else."""
    if isinstance(value, str):
        text = str(value)
        for name, code in codes.items():
            text = text.replace(name, code)
        return _break(text, names, marker)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {_broken(key, names, marker, codes): _broken(item, names, marker, codes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_broken(item, names, marker, codes) for item in value]
    raise RequestError("messages", "must hold strings, numbers, lists and tables", type(value).__name__)


def _break(text: str, names: Mapping[str, int], marker: str) -> str:
    """Break whole names, and, at both ends of the text, parts of names that a neighbour could complete."""
    for name in names:
        if name in text:
            text = text.replace(name, name[:1] + marker + name[1:])
    for name in names:
        sizes = range(min(len(name) - 1, len(text)), 0, -1)
        if not text.endswith(marker) and any(text.endswith(name[:size]) for size in sizes):
            text += marker
        if not text.startswith(marker) and any(text.startswith(name[-size:]) for size in sizes):
            text = marker + text
    return text
