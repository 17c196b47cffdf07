"""Answers aloud: an answer's words and their sound, both as soon as they are there."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from ingle.core.errors import RequestError
from ingle.core.message import AudioPart, Chunk
from ingle.media.sound import FORMATS, encoded, pcm16_of, wav_header
from ingle.serve.schema import ChatBody
from ingle.serve.service import Service
from ingle.serve.sound_memory import SoundMemory
from ingle.serve.speaking import RATE, STREAMED, Speaker, Voice, format_of, sound_of, voice_of

Chunks = AsyncGenerator[tuple[int, Chunk], None]
_SAMPLES = "audio/pcm"


@dataclass(frozen=True, slots=True)
class AloudWish:
    """The wishes of a client that wants to hear its answer."""

    voice: Voice
    format: str


async def aloud_wish(body: ChatBody, service: Service) -> AloudWish | None:
    """Return how an answer is to be spoken; None = not at all. Raises RequestError, or ConfigError with the command for missing parts."""
    if "audio" not in (body.modalities or ()):
        return None
    if (body.n or 1) > 1:
        raise RequestError("n", "must be 1 for an answer that is spoken", body.n)
    usual, names = ("pcm", STREAMED) if body.stream else ("wav", tuple(FORMATS))
    format_ = format_of((body.audio and body.audio.format) or usual, "audio.format", names)
    return AloudWish(await voice_of(service, body.audio.voice_name if body.audio else "auto"), format_)


async def aloud(talk: Speaker, chunks: Chunks, words: Callable[[Chunk], str]) -> Chunks:
    """Yield an answer's chunks as they come, and pieces of its sound (PCM) as soon as each clause is made; the last chunk at last.

    `words`: the words of a chunk that are to be spoken. Closing it ends the answer and the talk.
    """
    outbox: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
    last: list[Chunk] = []

    async def read() -> None:
        async with aclosing(chunks) as opened:
            async for _, chunk in opened:
                talk.say(words(chunk))
                outbox.put_nowait(replace(chunk, finish=None, usage=None, event=None))
                if chunk.finish:
                    last.append(replace(chunk, text="", tokens=(), logprobs=()))
        talk.end()

    async def listen() -> None:
        async with aclosing(talk.pieces()) as pieces:
            async for piece in pieces:
                outbox.put_nowait(Chunk("", media=(AudioPart(pcm16_of(piece.sound), _SAMPLES),)))

    async def both() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(listen())
        except* Exception as errors:
            outbox.put_nowait(errors.exceptions[0] if isinstance(errors.exceptions[0], Exception) else RuntimeError("cancelled"))
        else:
            outbox.put_nowait(None)

    working = asyncio.create_task(both())
    try:
        while (one := await outbox.get()) is not None:
            if isinstance(one, Exception):
                raise one
            yield 0, one
        for chunk in last:
            yield 0, chunk
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@dataclass
class SpokenReply:
    """The field `audio` of an answer that is spoken, whole or piece by piece."""

    talk: Speaker
    format: str
    kept: SoundMemory
    _text: list[str] = field(default_factory=list)
    _samples: list[bytes] = field(default_factory=list)

    def delta(self, text: str, chunk: Chunk, first: bool) -> dict[str, Any]:
        """Return the next piece; empty if there is nothing new."""
        table: dict[str, Any] = {"id": self.talk.id} if first else {}
        if text:
            table["transcript"] = text
        samples = self.take(text, chunk)
        if samples:
            head = wav_header(RATE) if self.format == "wav" and len(self._samples) == 1 else b""
            table["data"] = base64.b64encode(head + samples).decode()
        return table

    def take(self, text: str, chunk: Chunk) -> bytes:
        """Take the words and the sound of a chunk; returns the sound."""
        samples = b"".join(part.data for part in chunk.media if isinstance(part, AudioPart))
        self._text.append(text)
        if samples:
            self._samples.append(samples)
        return samples

    def end(self) -> dict[str, Any]:
        """Return the last piece. From now on the answer may be named by its id."""
        return {"expires_at": self.kept.spoke(self.talk.asker, self.talk.id, "".join(self._text))}

    async def whole(self) -> dict[str, Any]:
        """Return the field of a whole answer."""
        sound = sound_of(b"".join(self._samples))
        data = await asyncio.to_thread(encoded, sound, self.format)
        return {"id": self.talk.id, "data": base64.b64encode(data).decode(), "transcript": "".join(self._text)} | self.end()
