"""Sends answers over HTTP, whole or as server-sent events. They stop at once when the client hangs up."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ingle.app.answering import Ask
from ingle.core.errors import IngleError
from ingle.core.message import Chunk
from ingle.safety.middleware import close
from ingle.serve.http_errors import body_of
from ingle.serve.service import Service

T = TypeVar("T")
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class ClientGone(Exception):
    """The client has hung up."""


async def answers(service: Service, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Chunk], None]:
    """Yield the chunks of several answers as they come, each with the number of its answer. The first error ends them all.

    Only as many run at once as one user has places, so that no request is refused for its own size.
    """
    if len(asks) == 1:
        async with aclosing(service.answer(asks[0])) as chunks:
            async for chunk in chunks:
                yield 0, chunk
        return
    inbox: asyncio.Queue[tuple[int, Chunk | BaseException | None]] = asyncio.Queue()
    turns = asyncio.Semaphore(service.most_at_once)

    async def read(number: int, ask: Ask) -> None:
        try:
            async with turns, aclosing(service.answer(ask)) as chunks:
                async for chunk in chunks:
                    inbox.put_nowait((number, chunk))
            inbox.put_nowait((number, None))
        except BaseException as error:
            inbox.put_nowait((number, error))

    tasks = [asyncio.create_task(read(number, ask)) for number, ask in enumerate(asks)]
    try:
        left = len(tasks)
        while left:
            number, outcome = await inbox.get()
            if isinstance(outcome, BaseException):
                raise outcome
            left -= outcome is None
            if outcome is not None:
                yield number, outcome
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`. If the client hangs up first, cancel it and raise ClientGone."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def event_stream(request: Request, tables: AsyncIterator[Any], named: bool = False) -> StreamingResponse:
    """Return server-sent events, one per table. Waits for the first, so that an earlier error still gets its own status.

    `named`: events carry the table's `type` as their name, and there is no `[DONE]` at the end (the Responses API).
    """
    first = await while_connected(request, anext(tables))
    return _Events(_lines(first, tables, named), media_type="text/event-stream", headers=_HEADERS)


async def byte_stream(request: Request, pieces: AsyncIterator[bytes], media_type: str) -> StreamingResponse:
    """Return bytes as they come. Waits for the first piece, so that an earlier error still gets its own status."""
    first = await while_connected(request, anext(pieces, b""))
    return _Events(_after(first, pieces), media_type=media_type, headers=_HEADERS)


class _Events(StreamingResponse):
    """Closes its source when the client goes, not at garbage collection."""

    body_iterator: AsyncIterator[bytes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await close(self.body_iterator)


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in pieces:
            yield piece
    finally:
        await close(pieces)


async def _lines(first: Any, tables: AsyncIterator[Any], named: bool) -> AsyncIterator[bytes]:
    try:
        yield _event(first, named)
        async for table in tables:
            yield _event(table, named)
        if not named:
            yield b"data: [DONE]\n\n"
    except IngleError as error:
        yield _event({"type": "error", **body_of(error)}, named)
    finally:
        await close(tables)


def _event(table: Any, named: bool) -> bytes:
    data = json.dumps(table, ensure_ascii=False, separators=(",", ":"))
    return f"event: {table['type']}\ndata: {data}\n\n".encode() if named else f"data: {data}\n\n".encode()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
