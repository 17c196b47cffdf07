"""The sound of a tab: what its microphone hears becomes messages, and answers are read aloud. Over a WebSocket of its own.

The browser sends samples and short orders; it gets samples to play, and what was understood. A spoken message goes the way of a typed
one: the tab puts it into its message box and sends it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from ingle.core.errors import ConfigError, IngleError, NotKept, RequestError
from ingle.core.media import Sound
from ingle.media.sound import TurnSettings, pcm16_of
from ingle.serve.hearing import guard_words, heard_fact
from ingle.serve.listening import HeardTurn, Listener, SaidSoFar, SpeechBegan, TurnFailed, TurnNews
from ingle.serve.pending_answers import PendingAnswer
from ingle.serve.shares import Pace
from ingle.serve.sign_in import COOKIE, Sessions, Visitor
from ingle.serve.speaking import RATE, Speaker, voice_of, warm
from ingle.serve.talks import Talks
from ingle.serve.troubles import said

PATH = "/v1/voice"
MOST_LINES, MOST_LINES_EACH = 64, 8  # tabs with sound at once, of all and of one person
_MOST_TEXT = 65_536
_MOST_ID = 64
_LOOK_S = 0.03  # time between two looks at an answer that is being written
_ABILITIES = {"listen": "hear", "read": "speak"}  # the ability that an order needs (serve/abilities.py)
Order = Mapping[str, Any]


router = APIRouter()


@router.websocket(PATH)
async def voice(socket: WebSocket) -> None:
    """Serve the sound of a tab, for somebody at this machine, or who has signed in."""
    talks: Talks = socket.app.state.conversations
    sessions: Sessions = socket.app.state.auth.sessions
    visitor, tab, lines = await sessions.visitor(socket.cookies.get(COOKIE, "")), socket.query_params.get("tab", ""), talks.voices
    mine = visitor is not None and sum(owner == visitor.owner for owner, _ in lines)
    if visitor is None or not 0 < len(tab) <= _MOST_ID or len(lines) >= MOST_LINES or mine >= MOST_LINES_EACH:
        await socket.close(1008, "Sign in first." if visitor is None else "Too many tabs.")
        return
    await socket.accept()
    line = VoiceLine(talks, sessions, visitor, socket)
    lines[visitor.owner, tab] = line
    try:
        await line.talk()
    finally:
        if lines.get((visitor.owner, tab)) is line:
            del lines[visitor.owner, tab]
        await line.close()


class VoiceLine:
    """The sound of one tab."""

    def __init__(self, talks: Talks, sessions: Sessions, visitor: Visitor, socket: WebSocket) -> None:
        self._talks, self._sessions, self._visitor, self._socket, self._service = talks, sessions, visitor, socket, talks.service
        self._voice, self._wants = "auto", ""
        self._listener: Listener | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answer: PendingAnswer | None = None  # the answer that is being read while it is written
        self._orders: dict[str, Callable[[Order], Awaitable[None]]] = {
            "listen": self._listen, "deaf": self._deaf, "commit": self._commit,
            "read": self._read, "hush": self._hush, "voice": self._choose,
        }  # fmt: skip

    async def talk(self) -> None:
        """Do what the tab wants until it goes."""
        await self._tell("hello", {"voices": await asyncio.to_thread(self._service.speech.voices)})
        pace = Pace()
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await pace.take(len(message.get("bytes") or message.get("text") or ""))
                try:
                    await self._take(message)
                except IngleError as error:
                    self._service.refusals.refused(PATH, error, self._visitor.owner)
                    wants = {"wants": self._wants} if isinstance(error, NotKept | ConfigError) else {}
                    await self._tell("trouble", {"text": said(error), **wants})

    async def close(self) -> None:
        """End what goes on."""
        if self._listener is not None:
            self._listener.close()
        self._listener = None
        await self._hush({})

    def follow(self, pending: PendingAnswer) -> None:
        """Read an answer aloud while it is being written."""
        self._answer = pending
        self._begin(_words(pending), pending.ask.id)

    async def _take(self, message: Mapping[str, Any]) -> None:
        if message.get("bytes") is not None:
            if self._listener is not None:
                await self._listener.feed(message["bytes"])
            return
        try:
            order = json.loads(message.get("text") or "")
        except ValueError:
            order = None
        deed = self._orders.get(str(order.get("do"))) if isinstance(order, dict) else None
        if deed is None:
            raise RequestError("order", f"must be one of {', '.join(self._orders)}", str(order)[:40])
        if await self._sessions.visitor(self._visitor.sign_in) is None:
            raise WebSocketDisconnect(1008)
        self._wants = _ABILITIES.get(order["do"], "")
        await deed(order)

    async def _tell(self, type_: str, facts: Mapping[str, Any] | None = None) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # it has gone
            await self._socket.send_text(json.dumps({"type": type_, **(facts or {})}))

    async def _listen(self, order: Order) -> None:
        """Hear what comes from now on: turn by turn, or (`once`) until `commit`."""
        self._listener = Listener(self._service, self._news, None if order.get("once") else TurnSettings(), self._visitor.owner)
        await asyncio.to_thread(self._service.speech.hearing, Sound(np.zeros(RATE // 10, np.float32), RATE))  # says what is missing
        await self._tell("hears")
        await warm(self._service, self._voice, self._visitor.owner)

    async def _deaf(self, _order: Order) -> None:
        self._listener = None

    async def _commit(self, _order: Order) -> None:
        if self._listener is not None:
            self._listener.commit()

    async def _choose(self, order: Order) -> None:
        self._voice = str(order.get("name") or "auto")[:_MOST_ID]

    async def _read(self, order: Order) -> None:
        """Read a text aloud in place of what is being read."""
        text = order.get("text")
        if not isinstance(text, str) or len(text) > _MOST_TEXT:
            raise RequestError("text", f"must have at most {_MOST_TEXT:,} characters", type(text).__name__)
        voice = await voice_of(self._service, self._voice)
        await guard_words(self._service, text, voice.name, self._visitor.owner)
        await self._hush({})
        self._begin(_one(text), "")

    async def _hush(self, _order: Order) -> None:
        """Stop reading."""
        self._answer, task, self._reading = None, self._reading, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _begin(self, words: AsyncIterator[str], completion: str) -> None:
        before, self._reading = self._reading, None
        if before is not None:
            before.cancel()
        self._reading = asyncio.create_task(self._speak(words, completion), name="reading aloud")

    async def _speak(self, words: AsyncIterator[str], completion: str) -> None:
        feeding: asyncio.Task[None] | None = None
        try:
            speaker = Speaker(self._service, await voice_of(self._service, self._voice), self._visitor.owner, completion)
            await self._tell("reading")
            feeding = asyncio.create_task(_feed(speaker, words))
            async with aclosing(speaker.pieces()) as pieces:
                async for piece in pieces:
                    await self._socket.send_bytes(pcm16_of(piece.sound))
        except IngleError as error:
            await self._tell("trouble", {"text": said(error)})
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            if feeding is not None:
                feeding.cancel()
            with suppress(asyncio.CancelledError):
                await self._tell("read")

    async def _news(self, news: TurnNews) -> None:
        if isinstance(news, SpeechBegan):
            await self._interrupt()
            await self._tell("began")
        elif isinstance(news, SaidSoFar):
            await self._tell("partial", {"text": news.text})
        elif isinstance(news, HeardTurn):
            await heard_fact(self._service, news.sound.digest, news.heard, news.energy, self._visitor.owner, news.turn)
            await self._tell("said", {"text": news.heard.text.strip()})
        elif isinstance(news, TurnFailed):
            await self._tell("trouble", {"text": str(news.error)})

    async def _interrupt(self) -> None:
        """Who speaks ends what is read, and the answer if it is still being written."""
        answer = self._answer
        await self._hush({})
        if answer is not None:
            self._talks.pending.stop(answer)


async def _one(text: str) -> AsyncIterator[str]:
    yield text


async def _words(pending: PendingAnswer) -> AsyncIterator[str]:
    """Yield an answer's words as they are written."""
    at = 0
    while True:
        ended, words = pending.ended.is_set(), pending.words[at:]
        at += len(words)
        if words:
            yield "".join(words)
        elif ended:
            return
        await asyncio.sleep(_LOOK_S)


async def _feed(speaker: Speaker, words: AsyncIterator[str]) -> None:
    try:
        async for text in words:
            speaker.say(text)
    finally:
        speaker.end()
