"""Hearing and speaking, in one process of their own (speech_worker.py).

The process starts at the first use, and stops when nobody has used it for some minutes; its memory is then the system's again. If it is
killed, the next question starts it anew, and the one that it was at is asked once more. Each question is short: one window of sound, one
clause of text. So a long recording doesn't keep a voice waiting, and stopping a voice is to ask for no more clauses.
"""

import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np

from ingle.core.config import from_table
from ingle.core.errors import ConfigError, MediaError, NotKept, RequestError, raised
from ingle.core.installing import how_to_install
from ingle.core.media import Sound
from ingle.core.pipes import end_worker, read_message, write_message
from ingle.energy.meter import Clocks, Meter
from ingle.home.parts import find_part, is_kept
from ingle.home.place import Home
from ingle.media.clauses import clauses
from ingle.media.heard import Heard, HeardSegment, HeardWord, Window
from ingle.media.sound import resampled

RATE = 16_000
WINDOW_S = 30
IDLE_S = 300.0
"""Seconds without a question after which the process stops."""
ANSWER_S, START_S = 120.0, 60.0
"""Limits for one answer and for the start, on a busy machine."""
EARS = ("whisper-tiny.en", "whisper-base")
MOUTHS = {"joe": "voice-joe"}
"""Voices that are a part of their own; all others are Kokoro's."""
_DICTIONARY, _KOKORO = "phonemes-en", "kokoro"
_UNSURE = -0.75
"""Mean log-probability of a token below which the English ears may have heard another language."""
_SPEEDS = (0.25, 4.0)


@dataclass(frozen=True, slots=True)
class _Question:
    """A question to the process."""

    header: dict[str, Any]
    samples: "np.ndarray[Any, np.dtype[np.float32]] | None" = None


class Speech:
    """The handle of the process. Safe to use from several threads, which take turns."""

    def __init__(self, home: Home, idle_s: float = IDLE_S, answer_s: float = ANSWER_S) -> None:
        """`home` keeps the ears and voices. Starts nothing."""
        self._home, self._idle_s, self._answer_s = home, idle_s, answer_s
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Timer | None = None
        self.cpu_s = 0.0
        """Seconds of processor time that all answers took."""

    def hear(
        self,
        sound: Sound,
        model: str = "auto",
        language: str | None = None,
        translate: bool = False,
        prompt: str = "",
        words: bool = False,
        progress: Callable[[float], None] = lambda _seconds: None,
    ) -> Heard:
        """Return what a recording says; nothing where nobody speaks.

        `model`: a name of EARS; "auto" takes the small English one, and the other for other languages, for translations, and where the
        first was unsure. `language`: as in ISO 639-1; None = it is found out. `translate`: into English. `prompt`: names and words that are
        likely. `words`: whether each word gets its times. `progress` hears how many seconds are done.
        Raises RequestError, NotKept, ConfigError (without the extra), MediaError if the process fails twice.
        """
        _need("ctranslate2")
        chosen = self._ears(model, language, translate)
        samples = resampled(sound, RATE).samples
        found, unsure = self._hear(samples, chosen, language, translate, prompt, words, progress)
        other = EARS[1]
        if model == "auto" and unsure and chosen != other and language is None and is_kept(self._home, other):
            found, _ = self._hear(samples, other, language, translate, prompt, words, progress)
        return replace(found, seconds=sound.seconds)

    def _hear(
        self,
        samples: "np.ndarray[Any, np.dtype[np.float32]]",
        model: str,
        language: str | None,
        translate: bool,
        prompt: str,
        words: bool,
        progress: Callable[[float], None],
    ) -> tuple[Heard, bool]:
        """Return what one model hears, window by window, and whether it was unsure of it."""
        folder, segments, place, unsure = str(find_part(self._home, model)), list[HeardSegment](), 0, False
        while place < len(samples):
            piece = samples[place : place + WINDOW_S * RATE]
            last = place + len(piece) >= len(samples)
            header = {
                "call": "hear", "folder": folder, "language": language, "translate": translate, "words": words, "last": last,
                "prompt": " ".join([prompt, *(segment.text for segment in segments[-3:])]).strip(),
            }  # fmt: skip
            answer, _ = self._ask(_Question(header, piece))
            window = from_table(Window, answer["window"])
            unsure |= window.confidence < _UNSURE
            language = language or window.language or None
            segments += [_moved(segment, place / RATE) for segment in window.segments]
            place += max(RATE, round(window.used_s * RATE))
            progress(min(place, len(samples)) / RATE)
        text = " ".join(segment.text for segment in segments)
        return Heard(text, (language or "") if segments else "", len(samples) / RATE, tuple(segments), model), unsure

    def speak(self, text: str | Iterable[str], voice: str = "auto", speed: float = 1.0) -> Iterator[Sound]:
        """Yield a text as sound, a piece for each clause, as soon as it is made. `text` may still be growing while it is spoken.

        `voice`: a name of `voices()`; "auto" is the fastest that is kept. `speed`: 1 = as the voice was trained.
        Raises what `hear` raises, before anything is spoken where it can be known then.
        """
        return (sound for _, sound in self.speak_clauses(text, voice, speed))

    def speak_clauses(self, text: str | Iterable[str], voice: str = "auto", speed: float = 1.0) -> Iterator[tuple[str, Sound]]:
        """Yield the words of each clause with their sound; else like `speak`."""
        _need("onnxruntime")
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            raise RequestError("speed", f"must be between {_SPEEDS[0]} and {_SPEEDS[1]}", speed)
        name, folder = self._mouth(voice)
        header = {
            "call": "say", "voice": name, "folder": str(folder), "phonemes": str(find_part(self._home, _DICTIONARY)), "speed": speed,
        }  # fmt: skip
        return self._speak(iter((text,)) if isinstance(text, str) else iter(text), header)

    def _speak(self, text: Iterator[str], header: dict[str, Any]) -> Iterator[tuple[str, Sound]]:
        for clause in clauses(text):
            answer, data = self._ask(_Question(header | {"text": clause}))
            if data:
                yield clause, Sound(np.frombuffer(data, np.float32), int(answer["rate"]))

    def voices(self) -> tuple[str, ...]:
        """Return the names of the voices that are kept, the fastest first."""
        own = [name for name, part in MOUTHS.items() if is_kept(self._home, part)]
        if is_kept(self._home, _KOKORO):
            own += sorted(path.stem for path in find_part(self._home, _KOKORO).glob("*.bin"))
        return tuple(own)

    def close(self) -> None:
        """End the process, and wait for it. A later question starts it again."""
        with self._lock:
            self._end()

    @cached_property
    def meter(self) -> Meter:
        """Meters the process by its processor time; a reading between two answers counts what others asked meanwhile, too."""
        return Meter(clocks=Clocks(cpu_s=lambda: self.cpu_s))

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _ears(self, model: str, language: str | None, translate: bool) -> str:
        if model not in ("auto", *EARS):
            raise RequestError("model", f"must be auto or one of {', '.join(EARS)}", model)
        small, large = EARS
        english = language in (None, "en") and not translate
        if model == small and not english:
            raise RequestError("model", f"{small} hears English only", "", f"Ask for {large}.")
        if model == "auto":
            model = small if english and (is_kept(self._home, small) or not is_kept(self._home, large)) else large
        find_part(self._home, model)
        return model

    def _mouth(self, voice: str) -> tuple[str, Path]:
        known = self.voices()
        if voice == "auto":
            return (known or ("joe",))[0], find_part(self._home, MOUTHS["joe"] if not known else MOUTHS.get(known[0], _KOKORO))
        name = next((one for one in known if voice in (one, one.partition("_")[2])), "")
        if not name:
            if not known:
                find_part(self._home, MOUTHS["joe"])
            raise NotKept(
                f"voice {voice}", "is not kept in this home", "", f"Kept here: {', '.join(known)}. `ingle pull kokoro` brings more."
            )
        return name, find_part(self._home, MOUTHS.get(name, _KOKORO))

    def _ask(self, question: _Question) -> tuple[dict[str, Any], bytes]:
        """Return the answer of the process: started if there is none, and once more if it ends meanwhile."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            try:
                for _ in range(2):
                    with suppress(EOFError, OSError):
                        answer, data = self._exchange(self._started(), question)
                        break
                    self._end()
                else:
                    rule = f"The process that hears and speaks ended twice, or took more than {self._answer_s:g} seconds"
                    raise MediaError("speech", rule, "", "Try a shorter sound or text; free some memory.")
            finally:
                self._rest()
        self.cpu_s += float(answer.get("cpu_s", 0.0))
        if fault := answer.get("fault"):
            raise raised(fault)
        return answer, data

    def _exchange(self, process: "subprocess.Popen[bytes]", question: _Question) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        data = b"" if question.samples is None else np.ascontiguousarray(question.samples, np.float32).tobytes()
        timer = Timer(self._answer_s, process.kill)
        timer.start()
        try:
            write_message(process.stdin, question.header, data)
            return read_message(process.stdout)
        finally:
            timer.cancel()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command, pipe = [sys.executable, "-P", "-m", "ingle.media.speech_worker"], subprocess.PIPE
        process = self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=dict(os.environ))
        weakref.finalize(self, end_worker, process)
        return process

    def _rest(self) -> None:
        """End the process after a while, unless somebody asks again."""
        self._timer = Timer(self._idle_s, self._end_idle, (self._process,))
        self._timer.daemon = True
        self._timer.start()

    def _end_idle(self, process: "subprocess.Popen[bytes] | None") -> None:
        with self._lock:
            if process is self._process:
                self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._process is not None:
            end_worker(self._process)
        self._process = None


def _moved(segment: HeardSegment, by_s: float) -> HeardSegment:
    words = tuple(HeardWord(word.start_s + by_s, word.end_s + by_s, word.text, word.probability) for word in segment.words)
    return HeardSegment(segment.start_s + by_s, segment.end_s + by_s, segment.text, words)


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(package, f"Hearing and speaking need {package}, which is not installed", "", how_to_install("speech"))
