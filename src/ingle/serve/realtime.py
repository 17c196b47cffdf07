"""`/v1/realtime`: a talk over a WebSocket, in the common part of OpenAI's Realtime API (docs/media-talk.md lists it)."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ingle.core.errors import Busy, IngleError, RequestError
from ingle.home.api_keys import ApiKey
from ingle.serve.auth import KeyAuth
from ingle.serve.logs import log
from ingle.serve.realtime_items import Emitter
from ingle.serve.realtime_session import TalkSession
from ingle.serve.service import Service

router = APIRouter()
MOST_SESSIONS = 16
"""Talks at once: each holds some sound in memory, and a voice."""
MOST_BYTES = 4 << 20
"""Longest event of a client."""
_KEY, _PROTOCOL, _TRIAL = "openai-insecure-api-key.", "realtime", "openai-beta.realtime-v1"
_WAITING = 512
"""Events that may wait for a slow client; its answers then wait, too."""


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """Talk with a client until it goes."""
    service: Service = socket.app.state.service
    offered = [one.strip() for one in socket.headers.get("sec-websocket-protocol", "").split(",") if one.strip()]
    talks: set[WebSocket] = socket.app.state.talks
    auth: KeyAuth = socket.app.state.auth
    try:
        key = await _key(socket, auth, offered)
        if len(talks) >= MOST_SESSIONS:
            raise Busy("talks", f"There are {MOST_SESSIONS} talks already", "", "Try again later.")
    except IngleError as error:
        await socket.close(1008, str(error)[:100])
        return
    trial = _TRIAL in offered or "realtime=v1" in socket.headers.get("openai-beta", "")
    await socket.accept(_PROTOCOL if _PROTOCOL in offered else None)
    service.metrics.request("/v1/realtime", 101)
    talks.add(socket)
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
    writer = asyncio.create_task(_write(socket, outbox))
    try:
        emit = Emitter(outbox.put, trial)
        session = TalkSession(service, key.id if key else "", socket.query_params.get("model", ""), emit, lambda: auth.count(key))
        try:
            await session.begin()
            await _read(socket, session)
        finally:
            await session.end()
    except IngleError as error:  # before it has begun
        await _drained(outbox, writer)
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}})
            await socket.close(1008, str(error)[:100])
    finally:
        talks.discard(socket)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        log("talk", {"ended": True})
        if socket.application_state == WebSocketState.CONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close()


async def _key(socket: WebSocket, auth: KeyAuth, offered: list[str]) -> ApiKey | None:
    """Return the key of a talk; None on this machine, where none is needed. A browser can send a key as a protocol only."""
    given = next((one.removeprefix(_KEY) for one in offered if one.startswith(_KEY)), "")
    authorization = socket.headers.get("authorization", "") or (f"Bearer {given}" if given else "")
    return await auth.key_of(authorization, socket.client.host if socket.client else "")


async def _read(socket: WebSocket, session: TalkSession) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text") or (message.get("bytes") or b"").decode("utf-8", "replace")
        try:
            event = _event(text)
        except RequestError as error:
            await session.fault(error)
            continue
        await session.take(event)


def _event(text: str) -> dict[str, Any]:
    if len(text) > MOST_BYTES:
        raise RequestError("event", f"must have at most {MOST_BYTES} bytes", len(text))
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("event", "must be JSON", str(error)[:80]) from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise RequestError("event", "must be a table with a type", type(event).__name__)
    return event


async def _write(socket: WebSocket, outbox: "asyncio.Queue[dict[str, Any]]") -> None:
    gone = False
    while True:
        event = await outbox.get()
        if not gone:  # who waits for room in the queue must go on, or would never learn that the client has gone
            try:
                await socket.send_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            except (RuntimeError, WebSocketDisconnect, OSError):
                gone = True
        outbox.task_done()


async def _drained(outbox: "asyncio.Queue[dict[str, Any]]", writer: "asyncio.Task[None]") -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(outbox.join(), 1.0)
    writer.cancel()
