"""`/v1/audio`: speech from text, text from speech, and the voices and ears that there are."""

import asyncio
import base64
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Response, UploadFile
from fastapi import Request as HttpRequest

from ingle.core.errors import RequestError
from ingle.home.parts import list_parts
from ingle.media.sound import FORMATS, encoded, joined, pcm16_of, wav_header
from ingle.media.speech import EARS
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.hearing import HearingWish, guard_words, hear
from ingle.serve.schema import SpeechBody
from ingle.serve.service import Service
from ingle.serve.speaking import RATE, STREAMED, Speaker, format_of, voice_of
from ingle.serve.stream import byte_stream, event_stream, while_connected
from ingle.serve.transcripts import Granularity, transcript

router = APIRouter(route_class=Keyed)
_OPENAI = ("whisper-1", "gpt-", "auto")
_SOUND: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in FORMATS.values()} | {"text/event-stream": {}}, "description": "Sound"}
}
_TRANSCRIPT: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/plain": {}, "text/vtt": {}}}}
TranscriptFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]
Language = Annotated[str | None, Form(max_length=32)]
Words = Annotated[str, Form(max_length=4096)]
Share = Annotated[float, Form(ge=0, le=1)]  # OpenAI's `temperature`; hearing here draws no lots, so it changes nothing


@router.post("/v1/audio/speech", tags=["media"], responses=_SOUND, response_class=Response)
async def speech(
    body: SpeechBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Speak a text. WAV and plain samples come clause by clause, while the rest is spoken."""
    format_ = format_of(body.response_format, "response_format", tuple(FORMATS))
    if not body.input.strip():
        raise RequestError("input", "must hold words", "nothing")
    voice = await voice_of(service, body.voice_name, body.speed)
    id_ = f"speech-{uuid.uuid4().hex}"
    await guard_words(service, body.input, voice.name, who, id_)
    talk = Speaker(service, voice, who, id_)
    talk.say(body.input)
    talk.end()
    if body.stream_format == "sse":
        return await event_stream(http, _events(talk), named=True)
    if format_ in STREAMED:
        return await byte_stream(http, _bytes(talk, format_), FORMATS[format_])
    return Response(await while_connected(http, _whole(talk, format_)), media_type=FORMATS[format_])


@router.post("/v1/audio/transcriptions", tags=["media"], responses=_TRANSCRIPT, response_class=Response)
async def transcriptions(
    http: HttpRequest, file: Annotated[UploadFile, File()],
    model: Annotated[str, Form(max_length=200)] = "", language: Language = None, prompt: Words = "",
    response_format: Annotated[TranscriptFormat, Form()] = "json", temperature: Share = 0.0,
    granularities: Annotated[list[Granularity] | None, Form(alias="timestamp_granularities[]", max_length=2)] = None,
    service: Service = Depends(service_of), who: str = Depends(asker),  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Write down the words of a recording."""
    wish = HearingWish(_ears_named(model), language or None, False, prompt, "word" in (granularities or ()))
    return await while_connected(http, _heard(service, who, file, wish, response_format, granularities or ["segment"]))


@router.post("/v1/audio/translations", tags=["media"], responses=_TRANSCRIPT, response_class=Response)
async def translations(
    http: HttpRequest, file: Annotated[UploadFile, File()],
    model: Annotated[str, Form(max_length=200)] = "", prompt: Words = "",
    response_format: Annotated[TranscriptFormat, Form()] = "json", temperature: Share = 0.0,
    service: Service = Depends(service_of), who: str = Depends(asker),  # noqa: B008 - FastAPI's way
) -> Response:  # fmt: skip
    """Write down the words of a recording in English."""
    wish = HearingWish(_ears_named(model), None, True, prompt)
    return await while_connected(http, _heard(service, who, file, wish, response_format, ["segment"]))


@router.get("/v1/audio/voices", tags=["media"])
async def voices(service: Service = Depends(service_of), _who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """List the voices that this home can speak with."""
    found = await asyncio.to_thread(service.speech.voices)
    return {"object": "list", "data": [{"id": name, "object": "voice"} for name in found]}


@router.get("/v1/audio/models", tags=["media"])
async def ears(service: Service = Depends(service_of), _who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """List the models that this home can hear with."""
    kept = {part.name for part in await asyncio.to_thread(list_parts, service.home)}
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "ingle"} for name in EARS if name in kept]}


def _ears_named(model: str) -> str:
    """Return the ears of this name; OpenAI's own names stand for whatever fits."""
    return "auto" if model == "" or model.startswith(_OPENAI) else model


async def _heard(
    service: Service, who: str, file: UploadFile, wish: HearingWish, format_: str, granularities: list[Granularity]
) -> Response:
    id_ = f"transcript-{uuid.uuid4().hex}"
    with service.slow.seats.taken(who):
        one = await hear(service, await file.read(), "file", who, wish, id_)
    await guard_words(service, one.heard.text, one.heard.model, who, id_)
    task = "translate" if wish.translate else "transcribe"
    text, media_type = transcript(one.heard, format_, task, granularities, one.about)
    return Response(text, media_type=media_type, headers={"X-Ingle-Event": str(one.about["event"])})


async def _bytes(talk: Speaker, format_: str) -> AsyncIterator[bytes]:
    head = wav_header(RATE) if format_ == "wav" else b""
    async with aclosing(talk.pieces()) as pieces:
        async for piece in pieces:
            yield head + pcm16_of(piece.sound)
            head = b""
    if head:  # nothing of the text is worth saying
        yield head


async def _whole(talk: Speaker, format_: str) -> bytes:
    async with aclosing(talk.pieces()) as pieces:
        sounds = [piece.sound async for piece in pieces]
    return await asyncio.to_thread(lambda: encoded(joined(iter(sounds)), format_))


async def _events(talk: Speaker) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(talk.pieces()) as pieces:
        async for piece in pieces:
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(pcm16_of(piece.sound)).decode()}
    yield {"type": "speech.audio.done", "ingle": talk.about}
