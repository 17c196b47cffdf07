"""A client of OpenAI's chat API that is light enough to share two cores with the server that it measures.

It writes requests by hand, notes bytes with their times while they stream, and reads them afterwards.
"""

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servers import Server

NO_END = {"0": -100, "2": -100}
"""Logit bias against both of SmolLM2's tokens that end an answer: all answers are then as long as they were asked to be."""
_WORDS = (
    "river mountain garden window paper silver winter summer morning evening bread water fire stone wood iron glass road bridge "
    "market village island forest valley harbour letter story music colour shadow light night table chair kitchen doctor teacher "
    "farmer sailor horse bird fish flower apple sugar salt butter cheese coffee early often never always slow quick warm cold old new"
)


def words(count: int, seed: object) -> str:
    """Some words, about a token each, that differ from their beginning for each seed."""
    return " ".join(random.Random(str(seed)).choices(_WORDS.split(), k=count))


@dataclass
class Reply:
    """What came back."""

    status: int = 0
    """0 = the connection broke before there was one."""
    retry_after_s: float = 0.0
    asked: float = 0.0
    """When, by `time.perf_counter`."""
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    ended: float = 0.0
    """When the whole of it had come; 0 = it broke off."""

    @cached_property
    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """Each `data:` of a stream with its time, or the whole body; `[DONE]` is an empty one."""
        found, rest = [], b""
        for at, piece in self.pieces:
            *whole, rest = (rest + piece).split(b"\n\n")
            found += [(at, _table(one.removeprefix(b"data: "))) for one in whole if one.startswith(b"data: ")]
        if not found and self.ended and rest.startswith(b"{"):
            found = [(self.ended, json.loads(rest))]
        return found

    @cached_property
    def words(self) -> list[tuple[float, str]]:
        """The pieces of the answer that hold text, with their times."""
        said = [(at, choice) for at, event in self.events for choice in event.get("choices", ())]
        texts = [(at, (choice.get("delta") or choice.get("message") or choice).get("content") or choice.get("text")) for at, choice in said]
        return [(at, text) for at, text in texts if text]

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(text for _, text in self.words)

    @property
    def first_s(self) -> float:
        """Seconds from asking, connection included, to the first piece of text."""
        return self.words[0][0] - self.asked

    def last(self, key: str) -> Any:
        """The last value of a field of the events: usage, ingle, error …"""
        return next((event[key] for _, event in reversed(self.events) if event.get(key)), None)

    @property
    def finish(self) -> str | None:
        """Why the answer ended; None = it is not known to have ended."""
        reasons = [choice.get("finish_reason") for _, event in self.events for choice in event.get("choices", ())]
        return next((reason for reason in reversed(reasons) if reason), None)


def _table(data: bytes) -> dict[str, Any]:
    return {} if data == b"[DONE]" else json.loads(data)


async def ask(server: "Server", body: dict[str, Any], key: str = "", reply: Reply | None = None) -> Reply:
    """One request over a connection of its own. `reply` is filled as it comes, so that something is there if this is cancelled.

    Raises OSError or asyncio.IncompleteReadError if the connection breaks.
    """
    reply = reply or Reply()
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    head += f"Connection: close\r\nContent-Length: {len(data)}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    reply.asked = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(f"{head}\r\n".encode() + data)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        reply.status, reply.retry_after_s = int(lines[0].split()[1]), float(fields.get("retry-after", 0))
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\n"), 16):
                reply.pieces.append((time.perf_counter(), (await reader.readexactly(size + 2))[:-2]))
        else:
            reply.pieces.append((time.perf_counter(), await reader.readexactly(int(fields["content-length"]))))
        reply.ended = time.perf_counter()
    finally:
        writer.transport.abort()  # hangs up if this was cancelled half-way
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return reply
