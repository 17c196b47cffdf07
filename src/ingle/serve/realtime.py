"""`/v1/realtime`: a talk over a WebSocket, in the common part of OpenAI's Realtime API (docs/media-talk.md lists it)."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ingle.core.clock import Clock
from ingle.core.errors import Busy, IngleError, RequestError
from ingle.home.api_keys import ApiKey
from ingle.serve.auth import KeyAuth
from ingle.serve.http_errors import response_of
from ingle.serve.logs import log
from ingle.serve.realtime_items import PATH, Emitter
from ingle.serve.realtime_session import TalkSession
from ingle.serve.service import Service
from ingle.serve.shares import Pace, Places

router = APIRouter()
MOST_TALKS, MOST_TALKS_EACH = 16, 3  # talks at once, of all and of each key: each holds some sound in memory, and a voice
IDLE_S = 300.0  # time after which a talk ends in which nobody says anything
MOST_BYTES = 4 << 20  # longest event of a client
_KEY, _PROTOCOL, _TRIAL = "openai-insecure-api-key.", "realtime", "openai-beta.realtime-v1"
_WAITING_BYTES = 4 << 20  # bytes of events that may wait for a slow client; its answers then wait, too


@router.websocket(PATH)
async def realtime(socket: WebSocket) -> None:
    """Talk with a client until it goes, or says nothing for a long time."""
    service: Service = socket.app.state.service
    offered = [one.strip() for one in socket.headers.get("sec-websocket-protocol", "").split(",") if one.strip()]
    talks: Places = socket.app.state.talks
    auth: KeyAuth = socket.app.state.auth
    key = None
    with ExitStack() as place:
        try:
            key = await _key(socket, auth, offered)
            place.enter_context(talks.taken(key.id if key else ""))
        except IngleError as error:
            service.refusals.refused(PATH, error, key.id if key else "")
            await socket.send_denial_response(response_of(error))
            return
        trial = _TRIAL in offered or "realtime=v1" in socket.headers.get("openai-beta", "")
        await socket.accept(_PROTOCOL if _PROTOCOL in offered else None)
        service.metrics.request(PATH, 101)
        await _talk(socket, service, key, lambda: auth.count(key), trial)


async def _talk(socket: WebSocket, service: Service, key: ApiKey | None, count: Callable[[], None], trial: bool) -> None:
    outbox = Outbox(socket)
    try:
        session = TalkSession(service, key.id if key else "", socket.query_params.get("model", ""), Emitter(outbox.put, trial), count)
        try:
            await session.begin()
            await _read(socket, session, service.clock)
        finally:
            await session.end()
    except IngleError as error:  # before it has begun
        service.refusals.refused(PATH, error, key.id if key else "")
        await outbox.drain()
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_json({"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}})
            await socket.close(1008, str(error)[:100])
    finally:
        await outbox.close()
        log("talk", {"ended": True})
        if socket.application_state == WebSocketState.CONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect):
                await socket.close()


async def _key(socket: WebSocket, auth: KeyAuth, offered: list[str]) -> ApiKey | None:
    """Return the key of a talk; None on this machine, where none is needed. A browser can send a key as a protocol only."""
    given = next((one.removeprefix(_KEY) for one in offered if one.startswith(_KEY)), "")
    authorization = socket.headers.get("authorization", "") or (f"Bearer {given}" if given else "")
    return await auth.key_of(authorization, socket.client.host if socket.client else "")


async def _read(socket: WebSocket, session: TalkSession, clock: Clock) -> None:
    pace = Pace(clock=clock)
    while True:
        try:
            async with clock.within(IDLE_S):
                message = await socket.receive()
        except TimeoutError:
            if session.answering:
                continue
            rule = f"Nobody has said anything for {IDLE_S:g} seconds, so this talk ends"
            await session.fault(Busy("talk", rule, "", "Begin another one when you need it."))
            return
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text") or (message.get("bytes") or b"").decode("utf-8", "replace")
        await pace.take(len(text))
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


class Outbox:
    """Events on their way to a client, sent in order; whoever puts one in waits while many bytes are on their way."""

    def __init__(self, socket: WebSocket) -> None:
        """Begins to send."""
        self._socket, self._waiting, self._bytes = socket, asyncio.Queue[str](), 0
        self._sent = asyncio.Condition()
        self._writer = asyncio.create_task(self._write())

    async def put(self, event: dict[str, Any]) -> None:
        """Send an event after all others."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        async with self._sent:
            await self._sent.wait_for(lambda: self._bytes < _WAITING_BYTES)
        self._bytes += len(text)
        self._waiting.put_nowait(text)

    async def drain(self) -> None:
        """Wait a moment until all is sent."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), 1.0)

    async def close(self) -> None:
        """Send no more."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        gone = False
        while True:
            text = await self._waiting.get()
            if not gone:  # who waits for room must go on, or would never learn that the client has gone
                try:
                    await self._socket.send_text(text)
                except (RuntimeError, WebSocketDisconnect, OSError):
                    gone = True
            self._waiting.task_done()
            async with self._sent:
                self._bytes -= len(text)
                self._sent.notify_all()
