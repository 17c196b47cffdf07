"""Speaking while an answer is written: nothing is lost, nothing waits, nothing goes on. The voice here is a stopwatch; real ones are in
test_serve_audio.py."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ingle.core.energy import NOTHING
from ingle.core.errors import MediaError, NotKept, RequestError
from ingle.core.media import Sound
from ingle.core.message import AudioPart, Chunk
from ingle.core.report import Event
from ingle.media.speech import clauses
from ingle.serve.aloud import SpokenReply, aloud
from ingle.serve.metrics import Metrics
from ingle.serve.service import Service
from ingle.serve.slow import Slow
from ingle.serve.sound_memory import SoundMemory
from ingle.serve.speaking import RATE, Speaker, Voice, format_of, sound_of

TEXT = "".join(f"Sentence number {number} of this answer is about a fox, and about the {number} hens that it met. " for number in range(40))


@dataclass
class Stopwatch:
    """A voice that takes its time for every letter, and makes one sample a letter."""

    letter_s: float = 0.0
    fails_at: int = 10**9
    said: list[str] = field(default_factory=list)

    def mouth(self, _voice: str, _speed: float) -> None: ...

    def say(self, clause: str, _mouth: None) -> Sound:
        if len(self.said) == self.fails_at:
            raise MediaError("speech", "The process that speaks has ended")
        time.sleep(self.letter_s * len(clause))
        self.said.append(clause)
        return Sound(np.full(len(clause), 0.5, np.float32), RATE)


@dataclass
class Records:
    """A ledger's inbox."""

    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> "Future[Any]":
        self.events.append(event)
        done: Future[Any] = Future()
        done.set_result(SimpleNamespace(seq=len(self.events)))
        return done


@dataclass
class Still:
    """A meter of nothing."""

    def begin(self) -> None: ...

    def read(self) -> None: ...

    def between(self, _first: None, _last: None) -> Any:
        return NOTHING


def talk_with(voice: Stopwatch) -> tuple[Speaker, Records]:
    records = Records()
    house = SimpleNamespace(speech=voice, slow=Slow(), meter=Still(), recorder=records, metrics=Metrics(), key=b"k")
    return Speaker(cast(Service, house), Voice("fox"), "", "id-1"), records


async def written(text: str, per_second: float = 0.0) -> AsyncGenerator[tuple[int, Chunk], None]:
    """An answer, four letters a token."""
    began = time.perf_counter()
    for i in range(0, len(text), 4):
        if per_second:
            await asyncio.sleep(max(0.0, began + i / 4 / per_second - time.perf_counter()))
        yield 0, Chunk(text[i : i + 4])
    yield 0, Chunk("", finish="stop")


async def collected(talk: Speaker, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> list[Chunk]:
    return [chunk async for _, chunk in aloud(talk, chunks, lambda chunk: chunk.text)]


def sounds(chunks: list[Chunk]) -> int:
    return sum(len(part.data) // 2 for chunk in chunks for part in chunk.media if isinstance(part, AudioPart))


@pytest.mark.parametrize("per_second", [0.0, 300.0])
def test_no_clause_is_lost_however_fast_it_is_written(per_second: float) -> None:
    voice = Stopwatch(0.0002)
    talk, records = talk_with(voice)
    chunks = asyncio.run(collected(talk, written(TEXT, per_second)))
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert voice.said == list(clauses(TEXT[i : i + 4] for i in range(0, len(TEXT), 4))) and len(voice.said) >= 40
    assert sounds(chunks) == sum(map(len, voice.said))
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"] and chunks[-1].finish == "stop"
    [event] = records.events
    assert (event.kind, event.subject, event.facts["clauses"], event.facts["ended"]) == ("speak", "fox", len(voice.said), "stop")
    assert talk.about["event"] == 1 and not [word for word in TEXT.split() if len(word) > 5 and word in str(event.facts)]


def test_it_speaks_while_the_answer_is_being_written() -> None:
    talk, _ = talk_with(Stopwatch())
    chunks = asyncio.run(collected(talk, written(TEXT[:600], 300.0)))
    first = next(i for i, chunk in enumerate(chunks) if chunk.media)
    assert sum(bool(chunk.text) for chunk in chunks[first:]) > 100


def test_who_goes_away_ends_the_voice_and_the_answer() -> None:
    voice = Stopwatch(0.001)
    talk, records = talk_with(voice)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[tuple[int, Chunk], None]:
        try:
            while True:
                yield 0, Chunk("And so on, and so on. ")
                await asyncio.sleep(0.005)
        finally:
            closed.set()

    async def leave() -> None:
        chunks = aloud(talk, endless(), lambda chunk: chunk.text)
        async for _, chunk in chunks:
            if chunk.media:
                break
        await chunks.aclose()

    asyncio.run(leave())
    assert closed.is_set()
    deadline = time.monotonic() + 5
    while any(thread.name == "talk" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the voice goes on"
        time.sleep(0.01)
    assert len(voice.said) < 5
    assert [event.facts["ended"] for event in records.events] == ["cancelled"]


def test_a_voice_that_breaks_is_an_error_and_a_fact() -> None:
    talk, records = talk_with(Stopwatch(fails_at=2))
    with pytest.raises(MediaError):
        asyncio.run(collected(talk, written(TEXT)))
    assert [event.facts["ended"] for event in records.events] == ["error"]


def test_an_answer_without_words_is_spoken_as_nothing() -> None:
    talk, _ = talk_with(Stopwatch())
    chunks = asyncio.run(collected(talk, written("")))
    assert [chunk.finish for chunk in chunks][-1] == "stop" and not sounds(chunks)


def test_the_field_of_a_spoken_answer_piece_by_piece_is_the_whole() -> None:
    text, piecewise, whole = TEXT[:300], SoundMemory(), SoundMemory()
    reply = SpokenReply(talk_with(Stopwatch())[0], "wav", piecewise)
    chunks = asyncio.run(collected(reply.talk, written(text)))
    deltas = [reply.delta(chunk.text, chunk, i == 0) for i, chunk in enumerate(chunks)]
    assert deltas[0]["id"] == reply.talk.id and sum("id" in delta for delta in deltas) == 1
    assert "".join(delta.get("transcript", "") for delta in deltas) == text
    import base64

    data = b"".join(base64.b64decode(delta["data"]) for delta in deltas if "data" in delta)
    assert data[:4] == b"RIFF" and data.count(b"RIFF") == 1
    other = SpokenReply(talk_with(Stopwatch())[0], "pcm", whole)
    for chunk in asyncio.run(collected(other.talk, written(text))):
        other.take(chunk.text, chunk)
    table = asyncio.run(other.whole())
    assert base64.b64decode(table["data"]) == data[44:] and table["transcript"] == text
    assert len(sound_of(data[44:]).samples) == len(data[44:]) // 2
    assert whole.words_of("", table["id"], "audio.id") == text and table["expires_at"] > time.time() + 3000


def test_spoken_answers_are_their_askers_own_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SoundMemory()
    kept.spoke("me", "audio_1", "a secret")
    for asker, id_ in (("you", "audio_1"), ("me", "audio_2")):
        with pytest.raises(NotKept, match="names no spoken answer"):
            kept.words_of(asker, id_, "messages[0].audio.id")
    for number in range(2000):
        kept.spoke("me", f"more_{number}", "x")
    with pytest.raises(NotKept):
        kept.words_of("me", "audio_1", "")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3700)
    with pytest.raises(NotKept):
        kept.words_of("me", "more_1999", "")


def test_formats_by_their_names() -> None:
    assert format_of("pcm16", "audio.format", ("pcm", "wav")) == "pcm" and format_of("mp3", "audio.format", ("mp3",)) == "mp3"
    with pytest.raises(RequestError, match="must be one of pcm, wav"):
        format_of("aac", "audio.format", ("pcm", "wav"))
