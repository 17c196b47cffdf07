"""The client of bench/: what it reports decides about claims, so it must read every byte right, however the network cuts them."""

import asyncio
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PIECES = ["The ", "fire", " – é", "\n\ndata: not an event"]


@pytest.fixture(scope="module")
def client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_client", ROOT / "bench" / "client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Port:
    """What the client wants to know of a server."""

    def __init__(self, port: int) -> None:
        self.port = port


def stream(finish: str | None = "length") -> bytes:
    tables: list[dict[str, Any]] = [{"id": "a", "choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
    tables += [{"id": "a", "choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in PIECES]
    if finish:
        tables += [{"id": "a", "choices": [{"delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": {"completion_tokens": 4}}]
    events = b"".join(b"data: " + json.dumps(table, ensure_ascii=False).encode() + b"\n\n" for table in tables)
    return events + (b"data: [DONE]\n\n" if finish else b"")


def chunked(body: bytes, size: int, end: bool = True) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if end else b"")


def talk(client: ModuleType, answer: bytes, key: str = "") -> tuple[Any, bytes]:
    """The reply to a server that says just these bytes, and what the client sent."""
    sent = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent = await reader.readuntil(b"\r\n\r\n")
        sent += await reader.readexactly(int(sent.split(b"Content-Length: ")[1].split(b"\r")[0]))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def run() -> Any:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reply = client.Reply()
            try:
                await client.ask(Port(server.sockets[0].getsockname()[1]), {"messages": "é"}, key, reply)
            except (OSError, asyncio.IncompleteReadError):
                reply.broken = True
            return reply

    return asyncio.run(run()), sent


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_stream_is_read_however_it_is_cut(client: ModuleType, size: int) -> None:
    reply, sent = talk(client, HEAD + chunked(stream(), size), "a key")
    assert (reply.status, reply.text, reply.finish, reply.last("usage")) == (200, "".join(PIECES), "length", {"completion_tokens": 4})
    assert len(reply.words) == len(PIECES), "the first table has no text, and is no piece"
    assert [at for at, _ in reply.words] == sorted(at for at, _ in reply.words)
    assert 0 < reply.first_s <= reply.ended - reply.asked
    assert b"Authorization: Bearer a key\r\n" in sent
    assert json.loads(sent.split(b"\r\n\r\n", 1)[1]) == {"messages": "é"}


def test_a_stream_that_breaks_off_has_no_end(client: ModuleType) -> None:
    reply, _ = talk(client, HEAD + chunked(stream(finish=None), 64, end=False))
    assert reply.broken and not reply.ended
    assert (reply.text, reply.finish) == ("".join(PIECES), None)


def test_an_end_that_came_before_the_connection_broke_counts(client: ModuleType) -> None:
    reply, _ = talk(client, HEAD + chunked(stream(), 64, end=False))
    assert reply.broken and reply.finish == "length"


@pytest.mark.parametrize("missing", [0, 1])
def test_a_whole_body_counts_only_if_it_is_whole(client: ModuleType, missing: int) -> None:
    table = {"id": "b", "choices": [{"message": {"content": "two\n\nparagraphs"}, "finish_reason": "stop"}]}
    body = json.dumps(table).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    reply, _ = talk(client, head + body[: len(body) - missing])
    assert (reply.text, reply.finish) == (("", None) if missing else ("two\n\nparagraphs", "stop"))


def test_a_refusal_says_when_to_come_back(client: ModuleType) -> None:
    body = json.dumps({"error": {"code": "Busy"}}).encode()
    reply, _ = talk(client, b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (reply.status, reply.retry_after_s, reply.finish, reply.last("error")) == (429, 3.0, None, {"code": "Busy"})


def test_words_differ_from_their_beginning(client: ModuleType) -> None:
    assert client.words(20, 1) == client.words(20, 1)
    assert len({tuple(client.words(20, seed).split()[:6]) for seed in range(100)}) == 100
