"""Hears recordings for the API's endpoints: within limits, behind the guards, and with a fact in the ledger.

The words of a recording in a message become the speaker's own words. So all that comes after (guards, memory, model, store, replay) reads
text, and nothing keeps the recording itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request as HttpRequest

from ingle.app.answering import behind_guards
from ingle.app.facts import answer_digest, guard_events
from ingle.core.apart import StopFlag
from ingle.core.digest import digest_bytes
from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import ConfigError, RequestError
from ingle.core.media import Sound
from ingle.core.message import AudioPart, Chunk, ImagePart, Message, Part, Request, TextPart, Verdict
from ingle.media.decoder import DecodedApart
from ingle.media.printed import printed_words, quoted, reads_print
from ingle.media.speech import RATE, Heard, Hearing
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Blocked
from ingle.safety.policy import GuardPolicy
from ingle.serve.service import Service
from ingle.serve.sound_facts import hear_event
from ingle.serve.sound_memory import HeardSound
from ingle.serve.stream import while_connected

# Limits of words that no language model reads: those of requests in bytes hold, and no context does.
_LIMITS = RequestLimits(1 << 20, 16, ())


@dataclass(frozen=True, slots=True)
class HearingWish:
    """The wishes of whoever sends a recording."""

    model: str = "auto"
    language: str | None = None  # code such as `de`; None = found out
    translate: bool = False  # whether the words are wanted in English
    prompt: str = ""  # words that may come up, such as names
    words: bool = False  # whether each word's times are wanted


async def hear(service: Service, data: bytes, place: str, asker: str, wish: HearingWish, completion: str) -> HeardSound:
    """Hear a recording and record the fact. `place` names it in errors; `completion`: the answer that it is heard for.

    Raises RequestError for bytes that are no sound or too long, ConfigError, NotKept or HomeError with the command for missing parts.
    """
    sound = await asyncio.to_thread(service.decoder.recording, data, place)
    heard, energy = await listen(service, sound, wish, asker)
    return await heard_fact(service, sound.digest, heard, energy, asker, completion)


async def listen(service: Service, sound: DecodedApart | Sound, wish: HearingWish, asker: str) -> tuple[Heard, Energy]:
    """Hear a sound window by window, each in the asker's turn, and meter it; leaves no fact."""
    began, slow, meter, energy = time.perf_counter(), service.slow, service.meter, NOTHING
    fetching = slow.decoding if isinstance(sound, DecodedApart) else slow.speech
    hearing, more = await fetching.do(asker, lambda stop: _first(service, sound, wish, stop))

    def window(_stop: StopFlag) -> Energy:
        reading = meter.begin()
        hearing.listen()
        return meter.between(reading, meter.read())

    while more:
        energy = energy + await slow.speech.do(asker, window)
        more = await fetching.do(asker, hearing.fetch)
    service.metrics.heard(hearing.heard.seconds, time.perf_counter() - began)
    return hearing.heard, energy


def _first(service: Service, sound: DecodedApart | Sound, wish: HearingWish, stop: StopFlag) -> tuple[Hearing, bool]:
    """Begin to hear; what is no sound is said before what is missing."""
    if isinstance(sound, DecodedApart):
        sound.piece(0, 1, RATE, stop)
    hearing = service.speech.hearing(sound, wish.model, wish.language, wish.translate, wish.prompt, wish.words)
    return hearing, hearing.fetch(stop)


async def heard_fact(service: Service, recording: str, heard: Heard, energy: Energy, asker: str, completion: str) -> HeardSound:
    """Record that a sound was heard: figures, and digests under the home's key. `recording`: its digest."""
    event = await asyncio.to_thread(hear_event, service.home, service.key, recording, heard, energy, asker, completion)
    row = await asyncio.wrap_future(service.recorder.add(event))
    return HeardSound(heard, {"event": row.seq, "model": heard.model, "seconds": round(heard.seconds, 3), "energy": energy.table()})


async def hear_request(http: HttpRequest, service: Service, request: Request, asker: str, completion: str) -> tuple[Request, list[Any]]:
    """Return the request with the words of its recordings in their place, and those that stand in its pictures behind them; and what was
    heard, for Ingle's own field of the response.

    Stops if the client goes. Raises what `hear` raises, Busy if the asker has too many in work, and RequestError for a recording without
    words.
    """
    parts = [part for message in request.messages for part in message.parts]
    if not any(isinstance(part, AudioPart) or (isinstance(part, ImagePart) and reads_print()) for part in parts):
        return request, []
    with service.slow.seats.taken(asker):
        return await while_connected(http, _hear_parts(service, request, asker, completion))


async def _hear_parts(service: Service, request: Request, asker: str, completion: str) -> tuple[Request, list[Any]]:
    messages, about = list[Message](), list[Any]()
    for i, message in enumerate(request.messages):
        parts: list[Part] = []
        for j, part in enumerate(message.parts):
            if not isinstance(part, AudioPart):
                parts.append(part)
                continue
            place, digest = f"messages[{i}].content[{j}].input_audio", digest_bytes(part.data)
            one = service.sounds.heard_before(asker, digest) or await hear(service, part.data, place, asker, HearingWish(), completion)
            service.sounds.heard(asker, digest, one)
            if not one.heard.text.strip():
                raise RequestError(place, "holds no words that could be heard", "", "Speak louder or closer, or type.")
            parts.append(TextPart(one.heard.text, part.origin))
            about.append({"message": i, "part": j, "text": one.heard.text, "language": one.heard.language} | one.about)
        messages.append(await with_printed_words(service, replace(message, parts=tuple(parts)), asker))
    return replace(request, messages=tuple(messages)), about


async def with_printed_words(service: Service, message: Message, asker: str) -> Message:
    """Return a user's message with the words in its pictures behind them; unchanged where Tesseract is not installed."""
    if message.role != "user" or not reads_print():
        return message
    parts: list[Part] = []
    for part in message.parts:
        parts.append(part)
        if isinstance(part, ImagePart) and (words := await _printed(service, part.data, asker)):
            parts.append(quoted(words))
    return replace(message, parts=tuple(parts))


async def _printed(service: Service, data: bytes, asker: str) -> str:
    """Return the words in a picture; none of one that can't be read, which whoever looks at it says better."""
    digest = digest_bytes(data)
    known = service.sounds.printed_before(asker, digest)
    if known is not None:
        return known
    try:
        words = await service.slow.decoding.do(asker, lambda stop: printed_words(service.decoder.picture(data, stop=stop), stop))
    except (ConfigError, RequestError):
        words = ""
    service.sounds.printed(asker, digest, words)
    return words


async def guard_words(service: Service, text: str, name: str, asker: str, completion: str = "") -> None:
    """Let the guards look at words that no language model reads, as a user's. Raises Blocked, and records what they told of.

    They may refuse; nothing is edited: what they mask, they mask from a model.
    """
    if not text.strip():
        return
    policy = await service.live.renewed()
    request, verdicts = Request((Message.of("user", text),), max_tokens=1), list[Verdict]()

    async def nothing(_request: Request) -> AsyncIterator[Chunk]:
        yield Chunk("", finish="stop")

    try:
        async for chunk in behind_guards(service, name, _LIMITS, request, policy, asker, nothing):
            verdicts += chunk.verdicts
    except Blocked as error:
        verdicts.append(error.verdict)
        raise
    finally:
        await _tell(service, policy, verdicts, text, name, asker, completion)


async def _tell(
    service: Service, policy: GuardPolicy, verdicts: Sequence[Verdict], text: str, name: str, asker: str, completion: str
) -> None:  # fmt: skip
    service.metrics.judged(dict.fromkeys(verdicts))
    events = guard_events(verdicts, name, "", policy, answer_digest(service.key, text), "", completion, asker)
    for written in [service.recorder.add(event) for event in events]:
        await asyncio.wrap_future(written)
