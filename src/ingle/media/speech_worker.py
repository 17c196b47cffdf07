"""The process behind `Speech`: reads one question at a time from standard input, a line and bytes, and answers with a line and bytes.

`python -P -m ingle.media.speech_worker`. It opens each ear and voice when it is first asked for, and ends with its standard input.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.apart import Answer, answer_calls
from ingle.core.config import to_table
from ingle.core.process import usable_cores
from ingle.media.ears.whisper import Whisper, open_whisper
from ingle.media.mouths.kokoro import Kokoro, open_kokoro
from ingle.media.mouths.piper import MODEL as PIPER
from ingle.media.mouths.piper import Piper, open_piper
from ingle.media.phonemes import open_phonemes

_MOST_BYTES = 4 << 30  # address space: all ears and voices together take a quarter of it
_MOST_THREADS = 4


def main() -> None:
    """Answer until standard input ends."""
    answer_calls({"hear": _hear, "say": _say}, _MOST_BYTES)


def _hear(question: dict[str, Any], data: bytes) -> Answer:
    samples = np.frombuffer(data, np.float32)
    options = (question["language"], question["translate"], question["prompt"], question["words"], question["last"])
    return {"window": to_table(_ears(question["folder"]).hear(samples, *options))}, b""


def _say(question: dict[str, Any], _data: bytes) -> Answer:
    mouth = _mouth(question["folder"], question["phonemes"])
    sound = mouth.say(question["text"], question["speed"], question["voice"])
    return {"rate": sound.rate}, sound.samples.tobytes()


@cache
def _ears(folder: str) -> Whisper:
    return open_whisper(Path(folder), _threads())


@cache
def _mouth(folder: str, phonemes: str) -> Piper | Kokoro:
    is_piper = (Path(folder) / PIPER).exists()
    return (open_piper if is_piper else open_kokoro)(Path(folder), open_phonemes(Path(phonemes)), _threads())


def _threads() -> int:
    return min(_MOST_THREADS, usable_cores())


if __name__ == "__main__":
    main()
