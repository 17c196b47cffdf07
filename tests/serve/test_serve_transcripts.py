"""Transcripts in every format that clients ask for."""

import json

import pytest

from ingle.media.speech import Heard, HeardSegment, HeardWord
from ingle.serve.transcripts import FORMATS, transcript

WORDS = (HeardWord(3661.5, 3661.9, " Good", 0.5), HeardWord(3661.9, 3662.25, " day.", 0.25))
SEGMENTS = (HeardSegment(0.0, 1.2345, "Hello --> there,\n\nyou."), HeardSegment(3661.5, 3662.25, "Good day.", WORDS))
HEARD = Heard("Hello --> there,\n\nyou. Good day.", "en", 3662.5, SEGMENTS, "whisper-tiny.en")


def test_subtitles_have_their_times_and_no_line_that_ends_them_early() -> None:
    srt, kind = transcript(HEARD, "srt", "transcribe", (), {})
    assert kind.startswith("text/plain")
    first = "1\n00:00:00,000 --> 00:00:01,234\nHello → there, you.\n"
    assert srt == first + "\n2\n01:01:01,500 --> 01:01:02,250\nGood day.\n"
    vtt, kind = transcript(HEARD, "vtt", "transcribe", (), {})
    assert kind.startswith("text/vtt")
    assert vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nHello → there, you.\n\n01:01:01.500 --> 01:01:02.250\nGood day.\n"


def test_json_holds_what_was_asked_for() -> None:
    plain = json.loads(transcript(HEARD, "json", "transcribe", ("word",), {"event": 7})[0])
    assert plain == {"text": HEARD.text, "ingle": {"event": 7}}
    table = json.loads(transcript(HEARD, "verbose_json", "translate", ("segment",), {})[0])
    assert (table["task"], table["language"], table["duration"]) == ("translate", "en", 3662.5)
    assert [one["text"] for one in table["segments"]] == [one.text for one in SEGMENTS] and "words" not in table
    assert table["segments"][0]["avg_logprob"] is None  # nobody measured its words
    assert table["segments"][1]["avg_logprob"] == pytest.approx(-1.0397, abs=1e-4)
    words = json.loads(transcript(HEARD, "verbose_json", "transcribe", ("word",), {})[0])
    assert [(one["word"], one["start"], one["end"]) for one in words["words"]] == [("Good", 3661.5, 3661.9), ("day.", 3661.9, 3662.25)]
    assert "segments" not in words


def test_silence_is_no_fault_in_any_format() -> None:
    for format_ in FORMATS:
        text, _ = transcript(Heard("", "", 2.0), format_, "transcribe", ("word", "segment"), {})
        assert text is not None and "None" not in text
