"""The process behind `Speech`: reads one question at a time from standard input, a line and bytes, and answers with a line and bytes.

`python -P -m ingle.media.speech_worker`. It opens each ear and voice when it is first asked for, and ends with its standard input.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.config import to_table
from ingle.core.errors import CheckpointError, IngleError, fault_of
from ingle.core.limits import limit_memory
from ingle.core.pipes import read_message, write_message
from ingle.media.ears.whisper import Whisper, open_whisper
from ingle.media.mouths.kokoro import Kokoro, open_kokoro
from ingle.media.mouths.piper import MODEL as PIPER
from ingle.media.mouths.piper import Piper, open_piper
from ingle.media.phonemes import open_phonemes

_MOST_BYTES = 4 << 30
"""Address space: all ears and voices together take a quarter of it."""
_MOST_THREADS = 4
Answer = tuple[dict[str, Any], bytes]


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    limit_memory(_MOST_BYTES)
    while True:
        try:
            question, data = read_message(sys.stdin.buffer)
        except EOFError:
            return
        began_s = time.process_time()
        try:
            answer, sound = _CALLS[question["call"]](question, data)
        except IngleError as error:
            answer, sound = {"fault": fault_of(error)}, b""
        except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:  # of a library, or of damaged files
            fault = CheckpointError(
                "speech", "can't hear or speak this", f"{type(error).__name__}: {error}"[:300], "`ingle verify` checks the files."
            )
            answer, sound = {"fault": fault_of(fault)}, b""
        write_message(answers, answer | {"cpu_s": time.process_time() - began_s}, sound)


def _hear(question: dict[str, Any], data: bytes) -> Answer:
    samples = np.frombuffer(data, np.float32)
    options = (question["language"], question["translate"], question["prompt"], question["words"], question["last"])
    return {"window": to_table(_ears(question["folder"]).hear(samples, *options))}, b""


def _say(question: dict[str, Any], _data: bytes) -> Answer:
    mouth = _mouth(question["folder"], question["phonemes"])
    sound = mouth.say(question["text"], question["speed"], question["voice"])
    return {"rate": sound.rate}, sound.samples.tobytes()


_CALLS: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {"hear": _hear, "say": _say}


@cache
def _ears(folder: str) -> Whisper:
    return open_whisper(Path(folder), _threads())


@cache
def _mouth(folder: str, phonemes: str) -> Piper | Kokoro:
    is_piper = (Path(folder) / PIPER).exists()
    return (open_piper if is_piper else open_kokoro)(Path(folder), open_phonemes(Path(phonemes)), _threads())


def _threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, usable)


if __name__ == "__main__":
    main()
