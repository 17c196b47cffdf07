"""Speaks a text while it is being written, clause by clause, each in the asker's turn.

What is written waits in a queue without an end, so that no clause is lost however fast the writer is. Whoever stops listening stops the
voice behind the clause that it is at.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ingle.core.apart import StopFlag
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError, RequestError
from ingle.core.media import Sound
from ingle.core.report import Event
from ingle.media.sound import resampled
from ingle.media.speech import Cutter, Mouth
from ingle.serve.service import Service
from ingle.serve.sound_facts import speak_event

RATE = 24_000  # samples per second of all that is spoken: clients of OpenAI's API take plain samples for this
STREAMED = ("pcm", "wav")  # formats that can be sent while they are made
_ALIASES = {"pcm16": "pcm"}
# Names of voices that clients send without a choice of their own.
_OPENAI = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip


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
        service.speech.mouth(wanted, speed)  # says what is missing
        return service.speech.voices()[0] if wanted == "auto" else wanted

    return Voice(await asyncio.to_thread(find), speed)


async def warm(service: Service, voice: str, asker: str) -> Energy:
    """Wake up ears and voice; returns the energy. Silent where one of them is missing, for whoever needs it will say so."""

    def work(_stop: StopFlag) -> Energy:
        first = service.meter.begin()
        with suppress(IngleError):
            list(service.speech.speak("Yes.", voice))
            service.speech.hear(Sound(np.zeros(RATE // 10, np.float32), RATE))
        return service.meter.between(first, service.meter.read())

    return await service.slow.speech.do(asker, work)


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
    completion: str = ""  # the answer that is spoken
    id: str = field(default_factory=lambda: f"audio_{uuid.uuid4().hex}")
    about: dict[str, Any] = field(default_factory=dict)  # ingle's own field of a response, once the talk has ended
    said: list[str] = field(default_factory=list)  # the clauses of which there is sound
    seconds: float = 0.0  # seconds of sound so far
    _texts: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    _energy: Energy = NOTHING
    _began: float = field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        """Take words as they are written; a clause is spoken when it is whole."""
        if text:
            self._texts.put_nowait(text)

    def end(self) -> None:
        """Say that nothing more will come."""
        self._texts.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[Spoken, None]:
        """Yield the clauses with their sound as soon as each is made. Closing it ends the talk. Raises what speaking raises."""
        ended, slow, speech = "cancelled", self.service.slow, self.service.speech
        try:
            with slow.seats.taken(self.asker):
                mouth = await asyncio.to_thread(speech.mouth, self.voice.name, self.voice.speed)
                async for clause in self._clauses():
                    sound = await slow.speech.do(self.asker, partial(self._made, clause, mouth))
                    if sound is not None:
                        self._count(one := Spoken(clause, sound))
                        yield one
            ended = "stop"
        except Exception:
            ended = "error"
            raise
        finally:
            self.end()
            recorded = self.service.recorder.add(self._fact(ended))
        row = await asyncio.wrap_future(recorded)
        self.about |= {"event": row.seq, "voice": self.voice.name, "seconds": round(self.seconds, 3), "energy": self._energy.table()}

    async def _clauses(self) -> AsyncIterator[str]:
        cutter = Cutter()
        while (text := await self._texts.get()) is not None:
            for clause in cutter.take(text):
                yield clause
        for clause in cutter.finish():
            yield clause

    def _made(self, clause: str, mouth: Mouth, _stop: StopFlag) -> Sound | None:
        meter = self.service.meter
        first = meter.begin()
        sound = self.service.speech.say(clause, mouth)
        self._energy = self._energy + meter.between(first, meter.read())
        return sound and resampled(sound, RATE)

    def _count(self, one: Spoken) -> None:
        if not self.said:
            self.service.metrics.began_to_speak(time.perf_counter() - self._began)
        self.said.append(one.text)
        self.seconds += one.sound.seconds
        self.service.metrics.spoke(one.sound.seconds)

    def _fact(self, ended: str) -> Event:
        took_s, energy = time.perf_counter() - self._began, self._energy if self.said else None
        return speak_event(self.service.key, self.voice.name, self.said, self.seconds, took_s, ended, energy, self.asker, self.completion)
