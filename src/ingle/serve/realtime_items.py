"""The turns of a talk, and the events that tell of them."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingle.core.message import Message, Role
from ingle.serve.realtime_settings import BETA

PATH = "/v1/realtime"
Fields = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def new_id(kind: str) -> str:
    """Return a new id: `item_…`, `event_…`."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True)
class Emitter:
    """Sends events under the names that a client knows."""

    send: Send
    beta: bool  # whether the client speaks the trial version

    async def __call__(self, type_: str, fields: Fields) -> None:
        """Send an event; one that the client's version lacks is left out."""
        name = BETA.get(type_, type_) if self.beta else type_
        if name:
            await self.send({"type": name, "event_id": new_id("event"), **fields})


@dataclass
class TalkItem:
    """One thing that was said. Its text grows while it is spoken, and is cut where the speaker is interrupted."""

    role: Role
    text: str
    aloud: bool = False  # whether it was spoken
    id: str = field(default_factory=lambda: new_id("item"))

    def part(self, beta: bool) -> dict[str, Any]:
        """Return its content."""
        kind = ("" if beta else "output_") if self.role == "assistant" else "input_"
        if self.aloud:
            return {"type": f"{kind}audio", "transcript": self.text}
        return {"type": f"{kind}text", "text": self.text}

    def table(self, beta: bool, status: str = "completed") -> dict[str, Any]:
        """Return it as events show it."""
        head = {"id": self.id, "object": "realtime.item", "type": "message", "status": status, "role": self.role}
        return head | {"content": [self.part(beta)] if status != "in_progress" else []}

    @property
    def message(self) -> Message:
        """It for the model."""
        return Message.of(self.role, self.text)
