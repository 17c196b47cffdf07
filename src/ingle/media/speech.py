"""Hearing and speaking, in one process of their own (speech_worker.py).

The process starts at the first use, and stops when nobody has used it for some minutes; its memory is then the system's again. If it is
killed, the next question starts it anew, and the one that it was at is asked once more. Each question is short: one window of sound, one
clause of text. So a long recording doesn't keep a voice waiting, and stopping a voice is to ask for no more clauses.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.apart import Answer, ProcessApart, ProcessEnded, StopFlag
from ingle.core.config import from_table, to_table
from ingle.core.errors import ConfigError, MediaError, NotKept, RequestError
from ingle.core.installing import how_to_install
from ingle.core.media import Sound
from ingle.energy.meter import Clocks, Meter
from ingle.home.parts import find_part, is_kept
from ingle.home.place import Home
from ingle.media.clauses import clauses
from ingle.media.decoder import Audible, InMemory
from ingle.media.heard import Heard, HeardSegment, HeardWord, Window

RATE = 16_000
WINDOW_S = 30
IDLE_S = 300.0
"""Seconds without a question after which the process stops."""
ANSWER_S = 120.0
"""Limit for one answer, on a busy machine."""
EARS = ("whisper-tiny.en", "whisper-base")
MOUTHS = {"joe": "voice-joe"}
"""Voices that are a part of their own; all others are Kokoro's."""
_DICTIONARY, _KOKORO = "phonemes-en", "kokoro"
_UNSURE = -0.75
"""Mean log-probability of a token below which the English ears may have heard another language."""
_SPEEDS = (0.25, 4.0)


class Speech:
    """The handle of the process. Safe to use from several threads, which take turns."""

    def __init__(self, home: Home, idle_s: float = IDLE_S, answer_s: float = ANSWER_S) -> None:
        """`home` keeps the ears and voices. Starts nothing."""
        self._home, self._answer_s = home, answer_s
        self._apart = ProcessApart("ingle.media.speech_worker", answer_s, idle_s)

    def hear(
        self,
        sound: Audible | Sound,
        model: str = "auto",
        language: str | None = None,
        translate: bool = False,
        prompt: str = "",
        words: bool = False,
        progress: Callable[[float], None] = lambda _seconds: None,
    ) -> Heard:
        """Return what a recording says; nothing where nobody speaks. `progress` hears how many seconds are done; else as `hearing`."""
        hearing = self.hearing(sound, model, language, translate, prompt, words)
        while hearing.fetch():
            hearing.listen()
            progress(hearing.seconds)
        return hearing.heard

    def hearing(
        self, sound: Audible | Sound, model: str = "auto", language: str | None = None, translate: bool = False, prompt: str = "",
        words: bool = False,
    ) -> "Hearing":  # fmt: skip
        """Return a recording that is about to be heard, window by window.

        `model`: a name of EARS; "auto" takes the small English one, and the other for other languages, for translations, and where the
        first was unsure. `language`: as in ISO 639-1; None = it is found out. `translate`: into English. `prompt`: names and words that are
        likely. `words`: whether each word gets its times.
        Raises RequestError, NotKept, ConfigError (without the extra); its steps RequestError, and MediaError if the process fails twice.
        """
        _need("ctranslate2")
        chosen = self._ears(model, language, translate)
        folders = {name: str(find_part(self._home, name)) for name in EARS if name == chosen or is_kept(self._home, name)}
        wish = {"language": language, "translate": translate, "words": words, "prompt": prompt}
        other = EARS[1] if model == "auto" and chosen != EARS[1] and language is None and EARS[1] in folders else ""
        return Hearing(self, InMemory(sound) if isinstance(sound, Sound) else sound, folders, wish, chosen, other)

    def speak(self, text: str | Iterable[str], voice: str = "auto", speed: float = 1.0) -> Iterator[Sound]:
        """Yield a text as sound, a piece for each clause, as soon as it is made. `text` may still be growing while it is spoken.

        `voice`: a name of `voices()`; "auto" is the fastest that is kept. `speed`: 1 = as the voice was trained.
        Raises what `hear` raises, before anything is spoken where it can be known then.
        """
        return (sound for _, sound in self.speak_clauses(text, voice, speed))

    def speak_clauses(self, text: str | Iterable[str], voice: str = "auto", speed: float = 1.0) -> Iterator[tuple[str, Sound]]:
        """Yield the words of each clause with their sound; else like `speak`."""
        mouth = self.mouth(voice, speed)
        pieces = iter((text,)) if isinstance(text, str) else iter(text)
        made = ((clause, self.say(clause, mouth)) for clause in clauses(pieces))
        return ((clause, sound) for clause, sound in made if sound is not None)

    def mouth(self, voice: str = "auto", speed: float = 1.0) -> "Mouth":
        """Return a voice that is kept, for `say`. Raises as `speak` does."""
        _need("onnxruntime")
        if not _SPEEDS[0] <= speed <= _SPEEDS[1]:
            raise RequestError("speed", f"must be between {_SPEEDS[0]} and {_SPEEDS[1]}", speed)
        name, folder = self._mouth(voice)
        return Mouth(name, str(folder), str(find_part(self._home, _DICTIONARY)), speed)

    def say(self, clause: str, mouth: "Mouth") -> Sound | None:
        """Return one clause as sound; None if nothing of it can be spoken."""
        answer, data = self.ask("say", {**to_table(mouth), "text": clause})
        return Sound(np.frombuffer(data, np.float32), int(answer["rate"])) if data else None

    def voices(self) -> tuple[str, ...]:
        """Return the names of the voices that are kept, the fastest first."""
        own = [name for name, part in MOUTHS.items() if is_kept(self._home, part)]
        if is_kept(self._home, _KOKORO):
            own += sorted(path.stem for path in find_part(self._home, _KOKORO).glob("*.bin"))
        return tuple(own)

    def close(self) -> None:
        """End the process, and wait for it. A later question starts it again."""
        self._apart.close()

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that all answers took."""
        return self._apart.cpu_s

    @cached_property
    def meter(self) -> Meter:
        """Meters the process by its processor time; a reading between two answers counts what others asked meanwhile, too."""
        return Meter(clocks=Clocks(cpu_s=lambda: self.cpu_s))

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        return self._apart.pid

    def ask(self, call: str, facts: dict[str, Any], data: bytes = b"") -> Answer:
        """Return the answer of the process: started if there is none, and once more if it ends meanwhile."""
        try:
            return self._apart.ask(call, facts, data, tries=2)
        except ProcessEnded:
            rule = f"The process that hears and speaks ended twice, or took more than {self._answer_s:g} seconds"
            raise MediaError("speech", rule, "", "Try a shorter sound or text; free some memory.") from None

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


@dataclass(frozen=True, slots=True)
class Mouth:
    """A voice as the process is asked for it."""

    voice: str
    folder: str
    phonemes: str
    """Folder of the dictionary."""
    speed: float


class Hearing:
    """A recording that is heard window by window: `fetch` and `listen` in turn, until `fetch` finds nothing more."""

    def __init__(
        self, speech: Speech, sound: Audible, folders: Mapping[str, str], wish: Mapping[str, Any], model: str, other: str
    ) -> None:  # fmt: skip
        """`other`: the ears to ask again where the first are unsure; "" = none."""
        self._speech, self._sound, self._folders, self._wish, self._other = speech, sound, folders, wish, other
        self._begin(model)

    def _begin(self, model: str) -> None:
        self._model, self._language = model, self._wish["language"]
        self._segments, self._place, self._unsure = list[HeardSegment](), 0, False
        self._end: int | None = None
        self._piece = np.empty(0, np.float32)

    def fetch(self, stop: StopFlag | None = None) -> bool:
        """Read the next window; False = all is heard. Raises RequestError where the recording is damaged."""
        if self._end is not None and self._place >= self._end:
            if not (self._unsure and self._other):
                return False
            self._begin(self._other)
            self._other = ""
        piece = self._sound.piece(self._place, WINDOW_S * RATE + 1, RATE, stop)
        self._piece = piece[: WINDOW_S * RATE]
        if len(piece) == len(self._piece):
            self._end = self._place + len(piece)
        return bool(len(piece)) or self.fetch(stop)

    def listen(self) -> None:
        """Hear the window that was read."""
        prompt = " ".join([self._wish["prompt"], *(segment.text for segment in self._segments[-3:])]).strip()
        asked = {
            **self._wish, "language": self._language, "prompt": prompt, "folder": self._folders[self._model], "last": self._end is not None,
        }  # fmt: skip
        answer, _ = self._speech.ask("hear", asked, np.ascontiguousarray(self._piece, np.float32).tobytes())
        window = from_table(Window, answer["window"])
        self._unsure |= window.confidence < _UNSURE
        self._language = self._language or window.language or None
        self._segments += [_moved(segment, self._place / RATE) for segment in window.segments]
        self._place += max(RATE, round(window.used_s * RATE))

    @property
    def seconds(self) -> float:
        """Seconds that are heard."""
        return (self._place if self._end is None else min(self._place, self._end)) / RATE

    @property
    def heard(self) -> Heard:
        """The words so far."""
        text = " ".join(segment.text for segment in self._segments)
        language = (self._language or "") if self._segments else ""
        return Heard(text, language, self.seconds, tuple(self._segments), self._model)


def _moved(segment: HeardSegment, by_s: float) -> HeardSegment:
    words = tuple(HeardWord(word.start_s + by_s, word.end_s + by_s, word.text, word.probability) for word in segment.words)
    return HeardSegment(segment.start_s + by_s, segment.end_s + by_s, segment.text, words)


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(package, f"Hearing and speaking need {package}, which is not installed", "", how_to_install("speech"))
