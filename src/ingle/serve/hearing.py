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

from ingle.core.digest import digest_bytes
from ingle.core.energy import Energy
from ingle.core.errors import RequestError
from ingle.core.media import Sound
from ingle.core.message import AudioPart, Chunk, Message, Part, Request, TextPart, Verdict
from ingle.media.heard import Heard
from ingle.media.printed import with_printed_words
from ingle.media.sound import read_sound
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Blocked, close, wrap
from ingle.safety.registry import make_guards
from ingle.serve.guard_facts import guard_events
from ingle.serve.record import answer_digest
from ingle.serve.service import Service
from ingle.serve.sound_facts import hear_event
from ingle.serve.sound_memory import HeardSound
from ingle.serve.stream import while_connected

_LIMITS = RequestLimits(1 << 20, 16, ())
"""Limits of words that no language model reads: those of requests in bytes hold, and no context does."""


@dataclass(frozen=True, slots=True)
class HearingWish:
    """The wishes of whoever sends a recording."""

    model: str = "auto"
    language: str | None = None
    """Code such as `de`; None = found out."""
    translate: bool = False
    """Whether the words are wanted in English."""
    prompt: str = ""
    """Words that may come up, such as names."""
    words: bool = False
    """Whether each word's times are wanted."""


async def hear(service: Service, data: bytes, place: str, asker: str, wish: HearingWish, completion: str) -> HeardSound:
    """Hear a recording and record the fact. `place` names it in errors; `completion`: the answer that it is heard for.

    Raises RequestError for bytes that are no sound or too long, ConfigError, NotKept or HomeError with the command for missing parts.
    """
    sound = await asyncio.to_thread(decoded, data, place)
    heard, energy = await listen(service, sound, wish)
    return await heard_fact(service, sound, heard, energy, asker, completion)


async def listen(service: Service, sound: Sound, wish: HearingWish) -> tuple[Heard, Energy]:
    """Hear a sound, and meter it; leaves no fact."""
    began, first = time.perf_counter(), service.speech.meter.begin()
    heard = await asyncio.to_thread(_listen, service, sound, wish)
    service.metrics.heard(sound.seconds, time.perf_counter() - began)
    return heard, service.speech.meter.between(first, service.speech.meter.read())


async def heard_fact(service: Service, sound: Sound, heard: Heard, energy: Energy, asker: str, completion: str) -> HeardSound:
    """Record that a sound was heard: figures, and digests under the home's key."""
    event = await asyncio.to_thread(hear_event, service.home, service.key, sound, heard, energy, asker, completion)
    row = await asyncio.wrap_future(service.recorder.add(event))
    return HeardSound(heard, {"event": row.seq, "model": heard.model, "seconds": round(sound.seconds, 3), "energy": energy.table()})


def _listen(service: Service, sound: Sound, wish: HearingWish) -> Heard:
    return service.speech.hear(sound, wish.model, wish.language, wish.translate, wish.prompt, wish.words)


async def hear_request(http: HttpRequest, service: Service, request: Request, asker: str, completion: str) -> tuple[Request, list[Any]]:
    """Return the request with the words of its recordings in their place, and those that stand in its pictures behind them; and what was
    heard, for Ingle's own field of the response.

    Stops if the client goes. Raises what `hear` raises, and RequestError for a recording without words.
    """
    request = await asyncio.to_thread(with_printed_words, request)
    if not any(isinstance(part, AudioPart) for message in request.messages for part in message.parts):
        return request, []
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
        messages.append(replace(message, parts=tuple(parts)))
    return replace(request, messages=tuple(messages)), about


def decoded(data: bytes, place: str) -> Sound:
    """Return the sound in these bytes. Raises RequestError, which names the place, for no sound or too much."""
    try:
        return read_sound(data)
    except RequestError as error:
        raise RequestError(place, error.rule, error.got, error.cure) from error


async def guard_words(service: Service, text: str, name: str, asker: str, completion: str = "") -> None:
    """Let the guards look at words that no language model reads, as a user's. Raises Blocked, and records what they told of.

    They may refuse; nothing is edited: what they mask, they mask from a model.
    """
    if not text.strip():
        return
    key = await asyncio.to_thread(service.key_name, asker)
    request, verdicts = Request((Message.of("user", text),), max_tokens=1), list[Verdict]()

    async def nothing(_request: Request) -> AsyncIterator[Chunk]:
        yield Chunk("", finish="stop")

    chunks = wrap(make_guards(_LIMITS, service.policy, name, key), nothing)(request)
    try:
        async for chunk in chunks:
            verdicts += chunk.verdicts
    except Blocked as error:
        verdicts.append(error.verdict)
        raise
    finally:
        await close(chunks)
        await _tell(service, verdicts, text, name, asker, completion)


async def _tell(service: Service, verdicts: Sequence[Verdict], text: str, name: str, asker: str, completion: str) -> None:
    service.metrics.judged(dict.fromkeys(verdicts))
    events = guard_events(verdicts, name, "", service.policy, answer_digest(service.key, text), "", completion, asker)
    for written in [service.recorder.add(event) for event in events]:
        await asyncio.wrap_future(written)
