"""Speaks a text while it is being written, clause by clause, in a thread of its own.

What is written waits in a queue without an end, so that no clause is lost however fast the writer is. Whoever stops listening stops the
voice behind the clause that it is at.
"""

import asyncio
import queue
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError, RequestError
from ingle.core.event import Event
from ingle.core.media import Sound
from ingle.media.sound import resampled
from ingle.media.speech import Speech
from ingle.serve.service import Service
from ingle.serve.sound_facts import speak_event

RATE = 24_000
"""Samples per second of all that is spoken: clients of OpenAI's API take plain samples for this."""
STREAMED = ("pcm", "wav")
"""Formats that can be sent while they are made."""
_ALIASES = {"pcm16": "pcm"}
_OPENAI = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
"""Names of voices that clients send without a choice of their own."""


def format_of(name: str, field: str, names: Sequence[str]) -> str:
    """Return the format that a client names. Raises RequestError for one that is not among `names`."""
    if _ALIASES.get(name, name) not in names:
        raise RequestError(field, f"must be one of {', '.join(names)}", name[:40])
    return _ALIASES.get(name, name)


def sound_of(data: bytes) -> Sound:
    """Return the sound of 16-bit samples, little-endian, RATE of them per second; half a sample at the end is left out."""
    return Sound(np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.float32) / np.float32(32768), RATE)


async def voice_of(service: Service, name: str, speed: float = 1.0) -> "Voice":
    """Return the voice of this name, ready to speak; "auto" and OpenAI's own names stand for the fastest that is kept.

    Raises NotKept, or ConfigError without the extra; both say the command.
    """

    def find() -> str:
        wanted = "auto" if name in ("", *_OPENAI) else name
        service.speech.speak("", wanted, speed)  # says what is missing, and makes no sound
        return service.speech.voices()[0] if wanted == "auto" else wanted

    return Voice(await asyncio.to_thread(find), speed)


def warm(speech: Speech, voice: str) -> None:
    """Wake up ears and voice; silent where one of them is missing, for whoever needs it will say so."""
    with suppress(IngleError):
        list(speech.speak("Yes.", voice))
        speech.hear(Sound(np.zeros(RATE // 10, np.float32), RATE))


@dataclass(frozen=True, slots=True)
class Voice:
    """The wishes of whoever listens."""

    name: str = "auto"
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """A clause and its sound."""

    text: str
    sound: Sound


@dataclass
class Speaker:
    """One talk: `say` what comes, `end` it, and read `pieces` meanwhile."""

    service: Service
    voice: Voice
    asker: str = ""
    completion: str = ""
    """The answer that is spoken."""
    id: str = field(default_factory=lambda: f"audio_{uuid.uuid4().hex}")
    about: dict[str, Any] = field(default_factory=dict)
    """Ingle's own field of a response, once the talk has ended."""
    said: list[str] = field(default_factory=list)
    """The clauses of which there is sound."""
    seconds: float = 0.0
    """Seconds of sound so far."""
    _texts: "queue.SimpleQueue[str | None]" = field(default_factory=queue.SimpleQueue)
    _stopped: bool = False
    _energy: Energy = NOTHING
    _began: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        """Take words as they are written; a clause is spoken when it is whole."""
        if text:
            self._texts.put(text)

    def end(self) -> None:
        """Say that nothing more will come."""
        self._texts.put(None)

    async def pieces(self) -> AsyncGenerator[Spoken, None]:
        """Yield the clauses with their sound as soon as each is made. Closing it ends the talk. Raises what speaking raises."""
        loop, outbox = asyncio.get_running_loop(), asyncio.Queue[Spoken | BaseException | None]()

        def post(one: Spoken | BaseException | None) -> None:
            if not self._stopped:  # the loop may be gone by then
                loop.call_soon_threadsafe(outbox.put_nowait, one)

        threading.Thread(target=self._work, args=(post,), name="talk", daemon=True).start()
        ended = "cancelled"
        try:
            while (one := await outbox.get()) is not None:
                if isinstance(one, BaseException):
                    ended = "error"
                    raise one
                self._count(one)
                yield one
            ended = "stop"
        finally:
            self._stopped = True
            self.end()
            recorded = self.service.recorder.add(self._fact(ended))
        row = await asyncio.wrap_future(recorded)
        self.about |= {"event": row.seq, "voice": self.voice.name, "seconds": round(self.seconds, 3), "energy": self._energy.table()}

    def _work(self, post: Callable[[Spoken | BaseException | None], None]) -> None:
        texts, meter = iter(self._texts.get, None), self.service.speech.meter
        try:
            first = meter.begin()
            for clause, sound in self.service.speech.speak_clauses(texts, self.voice.name, self.voice.speed):
                last = meter.read()
                self._energy, first = self._energy + meter.between(first, last), last
                if self._stopped:
                    return
                post(Spoken(clause, resampled(sound, RATE)))
            post(None)
        except Exception as error:
            post(error)

    def _count(self, one: Spoken) -> None:
        if not self.said:
            self.service.metrics.began_to_speak(time.perf_counter() - self._began)
        self.said.append(one.text)
        self.seconds += one.sound.seconds
        self.service.metrics.spoke(one.sound.seconds)

    def _fact(self, ended: str) -> Event:
        took_s, energy = time.perf_counter() - self._began, self._energy if self.said else None
        return speak_event(self.service.key, self.voice.name, self.said, self.seconds, took_s, ended, energy, self.asker, self.completion)
