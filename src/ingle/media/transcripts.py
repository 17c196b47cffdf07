"""Transcripts: heard words as text, as subtitles (SubRip, WebVTT) or as plain values."""

from collections.abc import Callable
from typing import Any

from ingle.media.heard import Heard


def as_text(heard: Heard) -> str:
    """Return the words, a line for each segment."""
    return "".join(f"{segment.text}\n" for segment in heard.segments)


def as_srt(heard: Heard) -> str:
    """Return SubRip subtitles."""
    return "\n".join(
        f"{number}\n{_clock(segment.start_s, ',')} --> {_clock(segment.end_s, ',')}\n{_cue(segment.text)}\n"
        for number, segment in enumerate(heard.segments, 1)
    )


def as_vtt(heard: Heard) -> str:
    """Return WebVTT subtitles."""
    cues = (f"{_clock(segment.start_s, '.')} --> {_clock(segment.end_s, '.')}\n{_cue(segment.text)}\n" for segment in heard.segments)
    return "\n".join(["WEBVTT\n", *cues])


def as_table(heard: Heard) -> dict[str, Any]:
    """Return plain values for JSON; times in seconds. Words are there where they were asked for."""
    return {
        "text": heard.text, "language": heard.language, "seconds": round(heard.seconds, 3), "model": heard.model,
        "segments": [
            {
                "start_s": round(segment.start_s, 2), "end_s": round(segment.end_s, 2), "text": segment.text,
                "words": [
                    {
                        "start_s": round(word.start_s, 2), "end_s": round(word.end_s, 2), "text": word.text,
                        "probability": round(word.probability, 3),
                    }
                    for word in segment.words
                ],
            }
            for segment in heard.segments
        ],
    }  # fmt: skip


TRANSCRIPTS: dict[str, Callable[[Heard], str]] = {"txt": as_text, "srt": as_srt, "vtt": as_vtt}
"""Ways to write a text file of it, by the ending of its name."""


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _cue(text: str) -> str:
    """Return a text that neither format takes for something else: an empty line ends a cue, an arrow begins one."""
    return " ".join(text.split()).replace("-->", "→")
