"""Parse tool calls from an answer's text as it streams: returns text to show and complete calls.

| style | what a call looks like | who writes so |
|---|---|---|
| hermes | `<tool_call>` {"name": …, "arguments": {…}} `</tool_call>`, anywhere, any number | Hermes, Qwen 2.5 and 3, our own description |
| llama | {"name": …, "parameters": {…}} as the whole answer; several with ";" between | Llama 3.1 to 3.3 |
| none | there are none | |

Only what may still become a call is held back. What turns out to be none is given back as the text that it is. White space around
a call belongs to the call. Source: the models' chat templates, and which answers vLLM's parsers of the same names take for calls.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Literal, NoReturn

from ingle.core.message import ToolCall

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
