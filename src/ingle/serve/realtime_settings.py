"""Settings and names of the Realtime API: as OpenAI has them now, and as clients of its trial version still say them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ingle.core.errors import RequestError
from ingle.media.sound import TurnSettings
from ingle.serve.service import Service
from ingle.serve.speaking import RATE, Voice, voice_of

# Names of events in the trial version; "" = it has none.
BETA = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
    "conversation.item.done": "",
}
_MODALITIES = (("text",), ("audio",), ("audio", "text"))


@dataclass(frozen=True, slots=True)
class TalkSettings:
    """The settings of a session, or of one response."""

    voice: Voice
    model: str = ""
    instructions: str = ""
    aloud: bool = True  # whether answers are spoken
    # How turns end by themselves; None = the client ends them.
    turns: TurnSettings | None = TurnSettings()  # noqa: RUF009 - frozen
    answers: bool = True  # whether the end of a turn asks for an answer
    interrupts: bool = True  # whether speech during an answer ends it
    language: str | None = None
    hint: str = ""  # words that may come up
    temperature: float | None = None
    max_tokens: int | None = None


async def changed(settings: TalkSettings, table: Mapping[str, Any], service: Service) -> TalkSettings:
    """Return the settings with what a client wants otherwise. Raises RequestError for a wrong value, NotKept for an unknown voice."""
    audio = _table(table, "audio")
    into, out = _table(audio, "input"), _table(audio, "output")
    for value in (table.get("input_audio_format"), table.get("output_audio_format"), into.get("format"), out.get("format")):
        _check_format(value)
    if table.get("tools"):
        raise RequestError("session.tools", "must be empty: a talk can't call functions yet", "", "Use /v1/chat/completions for those.")
    settings = replace(settings, **_plain(table))
    modalities = table.get("output_modalities", table.get("modalities"))
    if modalities is not None:
        if not isinstance(modalities, list) or tuple(sorted(map(str, modalities))) not in _MODALITIES:
            raise RequestError("session.output_modalities", 'must be ["text"] or ["audio"]', str(modalities)[:40])
        settings = replace(settings, aloud="audio" in modalities)
    voice, speed = out.get("voice", table.get("voice")), out.get("speed", table.get("speed"))
    if voice is not None or speed is not None:
        name = voice.get("id") if isinstance(voice, Mapping) else voice
        name = settings.voice.name if name is None else str(name)
        settings = replace(settings, voice=await voice_of(service, name, _number(speed, "speed", 0.25, 4.0, settings.voice.speed)))
    heard = into.get("transcription", table.get("input_audio_transcription"))
    if isinstance(heard, Mapping):
        settings = replace(settings, language=_text(heard, "language") or None, hint=_text(heard, "prompt"))
    if "turn_detection" in into or "turn_detection" in table:
        settings = _turns(settings, into.get("turn_detection", table.get("turn_detection")))
    return settings


def session_table(settings: TalkSettings, id_: str, model: str, beta: bool) -> dict[str, Any]:
    """Return the settings as events show them."""
    turns = settings.turns and {
        "type": "server_vad", "threshold": settings.turns.threshold, "prefix_padding_ms": round(settings.turns.prefix_s * 1000),
        "silence_duration_ms": round(settings.turns.silence_s * 1000), "create_response": settings.answers,
        "interrupt_response": settings.interrupts,
    }  # fmt: skip
    heard = {"model": "auto", "language": settings.language, "prompt": settings.hint}
    common = {
        "id": id_,
        "object": "realtime.session",
        "model": model,
        "instructions": settings.instructions,
        "tools": [],
        "tool_choice": "auto",
    }
    most = settings.max_tokens or "inf"
    if beta:
        return common | {
            "modalities": ["audio", "text"] if settings.aloud else ["text"], "voice": settings.voice.name, "input_audio_format": "pcm16",
            "output_audio_format": "pcm16", "input_audio_transcription": heard, "turn_detection": turns,
            "temperature": settings.temperature, "max_response_output_tokens": most,
        }  # fmt: skip
    format_ = {"type": "audio/pcm", "rate": RATE}
    out = {"format": format_, "voice": settings.voice.name, "speed": settings.voice.speed}
    sound = {"input": {"format": format_, "transcription": heard, "turn_detection": turns}, "output": out}
    return common | {
        "type": "realtime", "output_modalities": ["audio"] if settings.aloud else ["text"], "audio": sound, "max_output_tokens": most,
        "temperature": settings.temperature,
    }  # fmt: skip


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "instructions" in table:
        found["instructions"] = _text(table, "instructions")
    if table.get("temperature") is not None:
        found["temperature"] = _number(table["temperature"], "temperature", 0.0, 2.0, 0.0)
    most = table.get("max_output_tokens", table.get("max_response_output_tokens"))
    if most is not None:
        found["max_tokens"] = None if most == "inf" else int(_number(most, "max_output_tokens", 1, 10**7, 1))
    return found


def _turns(settings: TalkSettings, table: Any) -> TalkSettings:
    if table is None:
        return replace(settings, turns=None)
    if not isinstance(table, Mapping) or table.get("type", "server_vad") != "server_vad":
        got = str(table.get("type") if isinstance(table, Mapping) else table)[:40]
        raise RequestError("session.turn_detection", "must be null or of type server_vad", got)
    usual = settings.turns or TurnSettings()
    turns = TurnSettings(
        _number(table.get("threshold"), "threshold", 0.0, 1.0, usual.threshold),
        _number(table.get("prefix_padding_ms"), "prefix_padding_ms", 0, 5000, usual.prefix_s * 1000) / 1000,
        _number(table.get("silence_duration_ms"), "silence_duration_ms", 100, 10_000, usual.silence_s * 1000) / 1000,
    )
    answers, interrupts = table.get("create_response", settings.answers), table.get("interrupt_response", settings.interrupts)
    return replace(settings, turns=turns, answers=answers is not False, interrupts=interrupts is not False)


def _check_format(value: Any) -> None:
    if isinstance(value, Mapping):
        good = value.get("type", "audio/pcm") == "audio/pcm" and value.get("rate", RATE) == RATE
    else:
        good = value in (None, "pcm16")
    if not good:
        rule = f"must be plain 16-bit samples, {RATE} a second (audio/pcm, or pcm16)"
        raise RequestError("session.audio.format", rule, str(value)[:60])


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise RequestError(f"session.{name}", "must be a table", type(found).__name__)
    return found or {}


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name) or ""
    if not isinstance(value, str) or len(value) > 1 << 16:
        raise RequestError(f"session.{name}", "must be a text of at most 65,536 characters", type(value).__name__)
    return value


def _number(value: Any, name: str, low: float, high: float, usual: float) -> float:
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"session.{name}", f"must be a number between {low:g} and {high:g}", str(value)[:40])
    return float(value)
