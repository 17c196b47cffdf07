"""Transcripts as OpenAI's clients ask for them: json, text, srt, vtt, verbose_json."""

import json
import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Literal

from ingle.media.speech import TRANSCRIPTS, Heard, HeardSegment

Granularity = Literal["word", "segment"]
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
JSON, PLAIN = "application/json", "text/plain; charset=utf-8"


def transcript(heard: Heard, format_: str, task: str, granularities: Collection[str], about: Mapping[str, Any]) -> tuple[str, str]:
    """Return a transcript in a format of `FORMATS`, with its media type. `about`: Ingle's own field, for those that are JSON."""
    if format_ == "json":
        return json.dumps({"text": heard.text, "ingle": about}, ensure_ascii=False), JSON
    if format_ == "verbose_json":
        return json.dumps(_verbose(heard, task, granularities) | {"ingle": about}, ensure_ascii=False), JSON
    return TRANSCRIPTS["txt" if format_ == "text" else format_](heard), PLAIN if format_ != "vtt" else "text/vtt; charset=utf-8"


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
