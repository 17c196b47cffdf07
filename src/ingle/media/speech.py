"""Hearing and speaking, in one process of their own (speech_worker.py).

The process starts at the first use, and stops when nobody has used it for some minutes; its memory is then the system's again. If it is
killed, the next question starts it anew, and the one that it was at is asked once more. Each question is short: one window of sound, one
clause of text. So a long recording doesn't keep a voice waiting, and stopping a voice is to ask for no more clauses.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.apart import Answer, CallFailed, ProcessApart, ProcessEnded, StopFlag
from ingle.core.clock import REAL, Clock
from ingle.core.config import from_table, to_table
from ingle.core.errors import CheckpointError, ConfigError, MediaError, NotKept, RequestError
from ingle.core.files import how_to_install
from ingle.core.media import Sound
from ingle.energy.meter import Clocks, Meter
from ingle.home.parts import find_part, is_kept
from ingle.home.place import Home
from ingle.media.decoder import Audible, InMemory
from ingle.media.spoken_words import ABBREVIATIONS, spoken

# A stream of text → clauses worth saying, each as soon as it is complete.
# The first clause is short, so that a voice begins early; the next ones may be longer, because they are made while the ones before are
# heard. What can't be read aloud is announced (code) or left out (rulers of tables, marks). Nothing is lost, however fast or slowly the
# text comes.


_SOFT_WORDS = (2, 5, 9, 14)  # fewest words before a comma that ends a clause: of the first clause, the second, the third, and all others
_MOST_WORDS = (9, 16, 26, 40)  # words after which a clause ends wherever it is
_MOST_LETTERS = 600
_CODE = "Here is some code."
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.M)
_HARD = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s)|\n[ \t]*\n|\n(?=[ \t]*[^\sa-z])|[:;](?=\s)")
_SOFT = re.compile(r",(?=\s)|\s[–—-](?=\s)|\)(?=\s)|—(?=\w)")
_INITIAL = re.compile(r"(?:^|[\s(\"“])(?:[A-Za-z]\.)+$|(?:^|\n)\s*\d+[.)]$")


def clauses(pieces: Iterator[str]) -> Iterator[str]:
    """Yield the words of each clause of a text that comes in pieces."""
    cutter = Cutter()
    for piece in pieces:
        yield from cutter.take(piece)
    yield from cutter.finish()


class Cutter:
    """Holds what has come and was not said yet."""

    def __init__(self) -> None:
        """Begins a text."""
        self._held, self._said, self._fence = "", 0, ""

    def take(self, piece: str) -> Iterator[str]:
        """Yield the clauses that are complete with this piece."""
        self._held += piece
        yield from self._cut(final=False)

    def finish(self) -> Iterator[str]:
        """Yield the rest."""
        self._held += "\n"
        yield from self._cut(final=True)

    def _cut(self, final: bool) -> Iterator[str]:
        while True:
            text = self._next(final)
            if text is None:
                return
            if re.search(r"\w", said := spoken(text)):
                self._said += 1
                yield said

    def _next(self, final: bool) -> str | None:
        """Take the next clause off what is held; None if there is none yet, "" if something was left out."""
        if self._fence:
            return self._inside_fence(final)
        held = self._held.lstrip("\n") if self._held[:1] == "\n" else self._held
        self._held = held
        if not held.strip() and not final:
            return None
        fence = _FENCE.search(held)
        if fence is not None and not held[: fence.start()].strip():
            if "\n" not in held[fence.end() :] and not final:
                return None
            self._fence = fence[1]
            self._held = held[fence.end() :].partition("\n")[2]
            return _CODE
        if re.match(r"^ {0,3}(?:`{1,2}|~{1,2})$", held) and not final:
            return None  # perhaps the beginning of code
        if held.lstrip(" ").startswith("|"):
            return self._row(final)
        end = self._end(held if fence is None else held[: fence.start()], final or fence is not None)
        if end is None:
            if not final:
                return None
            end = len(held)
        self._held = held[end:]
        return held[:end] if held[:end] or not final else None

    def _inside_fence(self, final: bool) -> str | None:
        found = re.search(rf"^ {{0,3}}{re.escape(self._fence)}+[ \t]*(?:\n|$)", self._held, re.M)
        if found is None or (not self._held[found.start() :].endswith("\n") and "\n" not in self._held[found.start() :] and not final):
            if final:
                self._held, self._fence = "", ""
                return None
            self._held = self._held[self._held.rfind("\n") + 1 :]  # only an unfinished line may still be the fence
            return None
        self._held, self._fence = self._held[found.end() :], ""
        return ""

    def _row(self, final: bool) -> str | None:
        """Take a row of a table: its cells, separated by commas."""
        row, line, rest = self._held.partition("\n")
        if not line and not final:
            return None
        self._held = rest
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            return ""
        return ", ".join(cell for cell in cells if cell) + "."

    def _end(self, held: str, final: bool) -> int | None:
        """Return where the next clause ends."""
        step = min(self._said, len(_SOFT_WORDS) - 1)
        hard = next((found.end() for found in _HARD.finditer(held) if _ends(held, found)), None)
        for found in _SOFT.finditer(held, 0, hard or len(held)):
            words = len(held[: found.start()].split())
            if words >= _SOFT_WORDS[step] and len(held[found.end() : hard].split()) > 1:
                return found.end()
        words_at = [found.end() for found in re.finditer(r"\S+(?=\s)", held[: hard or len(held)])]
        if len(words_at) > _MOST_WORDS[step] and (hard is None or len(held[words_at[_MOST_WORDS[step] - 1] : hard].split()) > 2):
            return _before_joint(held, words_at, _MOST_WORDS[step])
        if (hard or len(held)) > _MOST_LETTERS:
            return max((end for end in words_at if end <= _MOST_LETTERS), default=_MOST_LETTERS)
        return len(held) if hard is None and final else hard


def _ends(held: str, found: re.Match[str]) -> bool:
    """Return whether a full stop ends a sentence: not after an abbreviation, an initial or the number of a list's item."""
    if found[0][:1] != "." or found[0].startswith(".."):
        return True
    before = held[: found.start() + 1]
    word = before.rsplit(None, 1)[-1].lstrip("(\"“'*_") if before.strip() else ""
    if _INITIAL.search(before):
        following = held[found.end() :].lstrip()[:1]
        return bool(re.search(r"(?:[A-Za-z]\.){2,}$", before)) and following.isupper()
    if word in ABBREVIATIONS and word not in ("etc.", "Inc.", "Ltd.", "Corp.", "Co.", "Jr.", "Sr.", "a.m.", "p.m.", "no.", "p."):
        return False
    following = held[found.end() :].lstrip()[:1]
    return word not in ABBREVIATIONS or not following.islower()


def _before_joint(held: str, words_at: list[int], most: int) -> int:
    """Return the end of a clause that has no punctuation: before a word that joins clauses, if there is one in its second half."""
    joints = [
        found.start()
        for found in re.finditer(r"\s(?:and|or|but|because|which|that|who|when|while|where|if|so|to|with|for|in|on|of|from|by)\s", held)
        if words_at[most // 2] <= found.start() <= words_at[most - 1]
    ]
    return joints[-1] if joints else words_at[most - 1]


# Heard words with their times.


@dataclass(frozen=True, slots=True)
class HeardWord:
    start_s: float
    end_s: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A sentence, or a part of one."""

    start_s: float
    end_s: float
    text: str
    words: tuple[HeardWord, ...] = ()  # empty unless they were asked for


@dataclass(frozen=True, slots=True)
class Heard:
    """The words of a recording."""

    text: str
    language: str  # ISO 639-1, as Whisper names it; empty where nothing is said
    seconds: float  # length of the recording
    segments: tuple[HeardSegment, ...] = ()
    model: str = ""  # the name of the part that heard it


@dataclass(frozen=True, slots=True)
class Window:
    """The words of a part of a recording, with times from its own beginning."""

    language: str
    used_s: float  # where the next window begins
    segments: tuple[HeardSegment, ...]
    confidence: float = 0.0  # mean log-probability of its tokens; 0 where surely nobody speaks


RATE = 16_000
WINDOW_S = 30
IDLE_S = 300.0  # seconds without a question after which the process stops
ANSWER_S = 120.0  # limit for one answer, on a busy machine
EARS = ("whisper-tiny.en", "whisper-base")
MOUTHS = {"joe": "voice-joe"}  # voices that are a part of their own; all others are Kokoro's
_DICTIONARY, _KOKORO = "phonemes-en", "kokoro"
_UNSURE = -0.75  # mean log-probability of a token below which the English ears may have heard another language
_SPEEDS = (0.25, 4.0)


class Speech:
    """The handle of the process. Safe to use from several threads, which take turns."""

    def __init__(self, home: Home, idle_s: float = IDLE_S, answer_s: float = ANSWER_S, clock: Clock = REAL) -> None:
        """`home` keeps the ears and voices. Starts nothing."""
        self._home, self._answer_s = home, answer_s
        self._apart = ProcessApart("ingle.media.speech_worker", answer_s, idle_s, clock=clock)

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
        except CallFailed as error:
            raise CheckpointError("speech", "can't hear or speak this", error, "`ingle verify` checks the files.") from None
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
    phonemes: str  # folder of the dictionary
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


# Transcripts: heard words as text, as subtitles (SubRip, WebVTT) or as plain values.


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


# Ways to write a text file of it, by the ending of its name.
TRANSCRIPTS: dict[str, Callable[[Heard], str]] = {"txt": as_text, "srt": as_srt, "vtt": as_vtt}


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _cue(text: str) -> str:
    """Return a text that neither format takes for something else: an empty line ends a cue, an arrow begins one."""
    return " ".join(text.split()).replace("-->", "→")
