"""Transcripts as OpenAI's clients ask for them: json, text, srt, vtt, verbose_json."""

import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from ingle.media.heard import Heard, HeardSegment

Granularity = Literal["word", "segment"]
JSON, PLAIN = "application/json", "text/plain; charset=utf-8"


def transcript(heard: Heard, format_: str, task: str, granularities: Collection[str], about: Mapping[str, Any]) -> tuple[str, str]:
    """Return a transcript in a format of `FORMATS`, with its media type. `about`: Ingle's own field, for those that are JSON."""
    if format_ == "json":
        return json.dumps({"text": heard.text, "ingle": about}, ensure_ascii=False), JSON
    if format_ == "verbose_json":
        return json.dumps(_verbose(heard, task, granularities) | {"ingle": about}, ensure_ascii=False), JSON
    return _WRITTEN[format_](heard), PLAIN if format_ != "vtt" else "text/vtt; charset=utf-8"


def _verbose(heard: Heard, task: str, granularities: Collection[str]) -> dict[str, Any]:
    table: dict[str, Any] = {"task": task, "language": heard.language, "duration": round(heard.seconds, 3), "text": heard.text}
    if "segment" in granularities:
        table["segments"] = [_segment(number, segment) for number, segment in enumerate(heard.segments)]
    if "word" in granularities:
        words = [word for segment in heard.segments for word in segment.words]
        table["words"] = [
            {
                "word": word.text.strip(),
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "probability": round(word.probability, 4),
            }
            for word in words
        ]
    return table


def _segment(number: int, segment: HeardSegment) -> dict[str, Any]:
    text = segment.text.encode()
    sure = [math.log(max(word.probability, 1e-10)) for word in segment.words]
    return {
        "id": number, "seek": 0, "start": round(segment.start_s, 3), "end": round(segment.end_s, 3), "text": segment.text, "tokens": [],
        "temperature": 0.0, "avg_logprob": round(sum(sure) / len(sure), 4) if sure else None, "no_speech_prob": None,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
    }  # fmt: skip


def _srt(heard: Heard) -> str:
    blocks = [
        f"{number}\n{_clock(one.start_s, ',')} --> {_clock(one.end_s, ',')}\n{_cue(one.text)}\n"
        for number, one in enumerate(heard.segments, 1)
    ]
    return "\n".join(blocks)


def _vtt(heard: Heard) -> str:
    return "WEBVTT\n\n" + "\n".join(
        f"{_clock(one.start_s, '.')} --> {_clock(one.end_s, '.')}\n{_cue(one.text)}\n" for one in heard.segments
    )


def _cue(text: str) -> str:
    """Return the words of a subtitle in one line: an empty line would end it, and an arrow would begin another."""
    return " ".join(text.split()).replace("-->", "→")


def _clock(seconds: float, point: str) -> str:
    """Return a time as subtitles have it: 01:02:03,456."""
    whole, millis = divmod(round(max(0.0, seconds) * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{millis:03}"


_WRITTEN: dict[str, Callable[[Heard], str]] = {"text": lambda heard: heard.text + "\n", "srt": _srt, "vtt": _vtt}
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
