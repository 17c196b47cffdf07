"""Speaking while an answer is written: nothing is lost, nothing waits, nothing goes on. The voice here says nothing aloud; real ones are
in test_serve_audio.py."""

import asyncio
import threading
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
from ingle.media.speech import Cutter, clauses
from ingle.serve.aloud import SpokenReply, aloud
from ingle.serve.metrics import Metrics
from ingle.serve.service import Service
from ingle.serve.slow import Slow
from ingle.serve.sound_memory import LIFE_S, SoundMemory
from ingle.serve.speaking import RATE, Speaker, Voice, format_of, sound_of
from tests.clocks import WALL, HandClock
from tests.waiting import PATIENCE_S, wait_until

TEXT = "".join(f"Sentence number {number} of this answer is about a fox, and about the {number} hens that it met. " for number in range(40))


@dataclass
class Counted:
    """A voice that makes one sample a letter. `gate`: it waits for this before each clause but the first `free` ones."""

    fails_at: int = 10**9
    free: int = 10**9
    gate: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)

    def mouth(self, _voice: str, _speed: float) -> None: ...

    def say(self, clause: str, _mouth: None) -> Sound:
        if len(self.said) == self.fails_at:
            raise MediaError("speech", "The process that speaks has ended")
        if len(self.said) >= self.free:
            assert self.gate.wait(PATIENCE_S)
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


def talk_with(voice: Counted) -> tuple[Speaker, Records]:
    records = Records()
    house = SimpleNamespace(speech=voice, slow=Slow(), meter=Still(), recorder=records, metrics=Metrics(), key=b"k")
    return Speaker(cast(Service, house), Voice("fox"), "", "id-1"), records


async def written(text: str, waits_for: Counted | None = None) -> AsyncGenerator[tuple[int, Chunk], None]:
    """An answer, four letters a token. `waits_for`: goes on when this has said all that is whole."""
    cutter, whole = Cutter(), 0
    for i in range(0, len(text), 4):
        yield 0, Chunk(text[i : i + 4])
        whole += len(list(cutter.take(text[i : i + 4])))
        while waits_for is not None and len(waits_for.said) < whole:
            await asyncio.sleep(0)
    yield 0, Chunk("", finish="stop")


async def opening(gate: threading.Event, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> AsyncGenerator[tuple[int, Chunk], None]:
    """An answer, at the end of which a gate is opened."""
    async for chunk in chunks:
        yield chunk
    gate.set()


async def collected(talk: Speaker, chunks: AsyncGenerator[tuple[int, Chunk], None]) -> list[Chunk]:
    return [chunk async for _, chunk in aloud(talk, chunks, lambda chunk: chunk.text)]


def sounds(chunks: list[Chunk]) -> int:
    return sum(len(part.data) // 2 for chunk in chunks for part in chunk.media if isinstance(part, AudioPart))


@pytest.mark.parametrize("slower", ["voice", "writer"])
def test_no_clause_is_lost_however_fast_it_is_written(slower: str) -> None:
    voice = Counted(free=0 if slower == "voice" else 10**9)
    talk, records = talk_with(voice)
    answer = opening(voice.gate, written(TEXT)) if slower == "voice" else written(TEXT, voice)
    chunks = asyncio.run(collected(talk, answer))
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert voice.said == list(clauses(TEXT[i : i + 4] for i in range(0, len(TEXT), 4))) and len(voice.said) >= 40
    assert sounds(chunks) == sum(map(len, voice.said))
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"] and chunks[-1].finish == "stop"
    [event] = records.events
    assert (event.kind, event.subject, event.facts["clauses"], event.facts["ended"]) == ("speak", "fox", len(voice.said), "stop")
    assert talk.about["event"] == 1 and not [word for word in TEXT.split() if len(word) > 5 and word in str(event.facts)]


def test_it_speaks_while_the_answer_is_being_written() -> None:
    voice = Counted()
    talk, _ = talk_with(voice)
    chunks = asyncio.run(collected(talk, written(TEXT[:800], voice)))
    first = next(i for i, chunk in enumerate(chunks) if chunk.media)
    assert sum(bool(chunk.text) for chunk in chunks[first:]) > 100


def test_who_goes_away_ends_the_voice_and_the_answer() -> None:
    voice = Counted(free=1)
    talk, records = talk_with(voice)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[tuple[int, Chunk], None]:
        try:
            while True:
                yield 0, Chunk("And so on, and so on. ")
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def leave() -> None:
        chunks = aloud(talk, endless(), lambda chunk: chunk.text)
        async for _, chunk in chunks:
            if chunk.media:
                break
        await chunks.aclose()
        assert closed.is_set() and len(voice.said) == 1
        voice.gate.set()
        assert await asyncio.to_thread(wait_until, lambda: talk.service.slow.speech._free, "the voice has ended")

    asyncio.run(leave())
    assert len(voice.said) <= 2, "it goes on no further than the clause that it was at"
    assert [event.facts["ended"] for event in records.events] == ["cancelled"]


def test_a_voice_that_breaks_is_an_error_and_a_fact() -> None:
    talk, records = talk_with(Counted(fails_at=2))
    with pytest.raises(MediaError):
        asyncio.run(collected(talk, written(TEXT)))
    assert [event.facts["ended"] for event in records.events] == ["error"]


def test_an_answer_without_words_is_spoken_as_nothing() -> None:
    talk, _ = talk_with(Counted())
    chunks = asyncio.run(collected(talk, written("")))
    assert [chunk.finish for chunk in chunks][-1] == "stop" and not sounds(chunks)


def test_the_field_of_a_spoken_answer_piece_by_piece_is_the_whole() -> None:
    text, piecewise, whole = TEXT[:300], SoundMemory(), SoundMemory(HandClock().clock)
    reply = SpokenReply(talk_with(Counted())[0], "wav", piecewise)
    chunks = asyncio.run(collected(reply.talk, written(text)))
    deltas = [reply.delta(chunk.text, chunk, i == 0) for i, chunk in enumerate(chunks)]
    assert deltas[0]["id"] == reply.talk.id and sum("id" in delta for delta in deltas) == 1
    assert "".join(delta.get("transcript", "") for delta in deltas) == text
    import base64

    data = b"".join(base64.b64decode(delta["data"]) for delta in deltas if "data" in delta)
    assert data[:4] == b"RIFF" and data.count(b"RIFF") == 1
    other = SpokenReply(talk_with(Counted())[0], "pcm", whole)
    for chunk in asyncio.run(collected(other.talk, written(text))):
        other.take(chunk.text, chunk)
    table = asyncio.run(other.whole())
    assert base64.b64decode(table["data"]) == data[44:] and table["transcript"] == text
    assert len(sound_of(data[44:]).samples) == len(data[44:]) // 2
    assert whole.words_of("", table["id"], "audio.id") == text and table["expires_at"] == WALL + LIFE_S


def test_spoken_answers_are_their_askers_own_and_are_forgotten() -> None:
    clock = HandClock()
    kept = SoundMemory(clock.clock)
    kept.spoke("me", "audio_1", "a secret")
    for asker, id_ in (("you", "audio_1"), ("me", "audio_2")):
        with pytest.raises(NotKept, match="names no spoken answer"):
            kept.words_of(asker, id_, "messages[0].audio.id")
    for number in range(2000):
        kept.spoke("me", f"more_{number}", "x")
    with pytest.raises(NotKept):
        kept.words_of("me", "audio_1", "")
    assert kept.words_of("me", "more_1999", "") == "x"
    clock.move(LIFE_S + 1)
    with pytest.raises(NotKept):
        kept.words_of("me", "more_1999", "")


def test_formats_by_their_names() -> None:
    assert format_of("pcm16", "audio.format", ("pcm", "wav")) == "pcm" and format_of("mp3", "audio.format", ("mp3",)) == "mp3"
    with pytest.raises(RequestError, match="must be one of pcm, wav"):
        format_of("aac", "audio.format", ("pcm", "wav"))
