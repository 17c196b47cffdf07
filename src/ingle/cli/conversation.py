"""The conversation of a chat, and its file: plain JSON that other programs read too."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic
from ingle.core.message import ROLES, ImagePart, Message, Part, TextPart


@dataclass
class TerminalConversation:
    """Messages in order, and at most one system prompt before them."""

    system: str = ""  # the system prompt; empty = none
    turns: list[Message] = field(default_factory=list)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, system prompt first, as the engine takes them."""
        begin = (Message.of("system", self.system),) if self.system else ()
        return (*begin, *self.turns)

    def undo(self) -> str | None:
        """Remove the last question and all that follows. Returns the question; None if there is none."""
        for index in range(len(self.turns) - 1, -1, -1):
            if self.turns[index].role == "user":
                question = self.turns[index].text
                del self.turns[index:]
                return question
        return None

    def save(self, path: Path, model: str) -> None:
        """Write the file atomically, readable by its owner alone. Raises ConfigError if another kind of file is there already."""
        if path.exists():
            try:
                TerminalConversation.load(path)
            except ConfigError as error:
                raise ConfigError(str(path), "holds something else than a conversation", "", "Choose another name.") from error
        table = {"model": model, "messages": [{"role": message.role, "content": _content(message)} for message in self.messages]}
        write_atomic(path, json.dumps(table, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass") + b"\n", mode=0o600)

    @staticmethod
    def load(path: Path) -> "TerminalConversation":
        """Read a file of `save`, or a plain list of messages. Raises ConfigError, HomeError."""
        if not path.exists():
            raise ConfigError(str(path), "is not there", "", "Check the path.")
        with os_errors(path):
            data = path.read_bytes()
        try:
            table: Any = json.loads(data)
        except ValueError as error:
            raise ConfigError(str(path), "must be a saved conversation in JSON", error) from error
        entries = table.get("messages") if isinstance(table, dict) else table
        if not isinstance(entries, list):
            raise ConfigError(str(path), "must hold a list of messages", type(entries).__name__)
        messages = [_message(path, number, entry) for number, entry in enumerate(entries, 1)]
        first_is_system = bool(messages) and messages[0].role == "system"
        if any(message.role == "system" for message in messages[1:]):
            raise ConfigError(str(path), "may hold one system message, the first", "one further down")
        return TerminalConversation(messages[0].text, messages[1:]) if first_is_system else TerminalConversation("", messages)


def _message(path: Path, number: int, entry: Any) -> Message:
    role, content = (entry.get("role"), entry.get("content")) if isinstance(entry, dict) else (None, None)
    where = f"{path}: message {number}"
    if role not in ROLES or not isinstance(content, str | list):
        raise ConfigError(where, f"must have a role ({', '.join(ROLES)}) and text as content", str(entry)[:80])
    return Message.of(role, content) if isinstance(content, str) else Message(role, tuple(_part(where, part) for part in content))


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Return the text of a message; with pictures, its parts as OpenAI's clients send them."""
    from ingle.serve.convert import image_table

    if all(isinstance(part, TextPart) for part in message.parts):
        return message.text
    parts = [part for part in message.parts if isinstance(part, TextPart | ImagePart)]
    return [{"type": "text", "text": part.text} if isinstance(part, TextPart) else image_table(part) for part in parts]


def _part(where: str, part: Any) -> Part:
    from ingle.serve.convert import image_of

    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return TextPart(part["text"])
    if isinstance(part, dict) and part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
        return image_of(str(part["image_url"].get("url")), where)
    raise ConfigError(where, "must hold text and pictures", str(part)[:80])
