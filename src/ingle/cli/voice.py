"""The microphone and the loudspeaker of a terminal, by whatever program for them is installed here."""

import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from ingle.cli.output import complain, note
from ingle.core.energy import NOTHING
from ingle.core.errors import ConfigError, IngleError
from ingle.core.media import Sound
from ingle.media.sound import TurnDetector, pcm16_of, resampled
from ingle.media.speech import Speech
from ingle.serve.sound_facts import hear_event, speak_event

if TYPE_CHECKING:
    from ingle.core.report import Event
    from ingle.home.place import Home

HEAR_RATE, SPEAK_RATE = 16_000, 24_000
_RECORDERS = (
    ("arecord", "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(HEAR_RATE)),
    ("parec", "--raw", "--format=s16le", "--channels=1", f"--rate={HEAR_RATE}"),
    ("rec", "-q", "-t", "raw", "-b", "16", "-e", "signed", "-c", "1", "-r", str(HEAR_RATE), "-"),
)
_PLAYERS = (
    ("aplay", "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(SPEAK_RATE)),
    ("paplay", "--raw", "--format=s16le", "--channels=1", f"--rate={SPEAK_RATE}"),
    ("ffplay", "-v", "quiet", "-nodisp", "-autoexit", "-f", "s16le", "-ch_layout", "mono", "-ar", str(SPEAK_RATE), "-"),
    ("play", "-q", "-t", "raw", "-b", "16", "-e", "signed", "-c", "1", "-r", str(SPEAK_RATE), "-"),
)
_PIECE = HEAR_RATE * 2 // 20
_MOST_S = 120.0  # longest turn
_PATIENCE_S = 10.0  # time in which somebody must begin to speak
Record = Callable[["Event"], object]


class TerminalVoice:
    """Hears one turn at a time, and speaks answers while they are written."""

    def __init__(self, home: "Home", key: Callable[[], bytes], record: Record) -> None:
        """`key`: of the answers' digests. Raises ConfigError without programs to record and play, or the extra; NotKept without parts."""
        self._home, self._key, self._record = home, key, record
        self._recorder, self._player = _program(_RECORDERS, "record"), _program(_PLAYERS, "play")
        self.speech = Speech(home)
        self.speech.speak("")  # says what is missing
        self._voice = self.speech.voices()[0]

    def close(self) -> None:
        """End the process that hears and speaks."""
        self.speech.close()

    def listen(self) -> str:
        """Return what is said next; "" if nobody speaks. Ctrl-C ends it early. Raises ConfigError for a recorder that fails."""
        note("Listening … (speak, and pause to end; Ctrl-C stops)")
        sound = self._turn()
        if not len(sound.samples):
            return ""
        first = self.speech.meter.begin()
        heard = self.speech.hear(sound)
        energy = self.speech.meter.between(first, self.speech.meter.read())
        self._record(hear_event(self._home, self._key(), sound.digest, heard, energy))
        return heard.text.strip()

    def _turn(self) -> Sound:
        detector, data, began = TurnDetector(HEAR_RATE), bytearray(), 0.0
        process = subprocess.Popen(self._recorder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert process.stdout is not None and process.stderr is not None
        try:
            while piece := process.stdout.read(_PIECE):
                data += piece
                changes = detector.feed(np.frombuffer(piece[: len(piece) & ~1], "<i2").astype(np.float32) / np.float32(32768))
                begins = [change.at_s for change in changes if change.kind == "began"]
                began = max(began, *begins, 1e-9) if begins else began
                seconds = len(data) / 2 / HEAR_RATE
                if any(change.kind == "ended" for change in changes) or seconds > (_MOST_S if began else _PATIENCE_S):
                    break
            else:
                if not data:
                    reason = process.stderr.read().decode("utf-8", "replace").strip()[-200:]
                    raise ConfigError("--voice", f"{self._recorder[0]} gave no sound", reason, "Is a microphone connected?")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        start = int(began * HEAR_RATE) if began else len(data) // 2
        return Sound(np.frombuffer(bytes(data[: len(data) & ~1]), "<i2")[start:].astype(np.float32) / np.float32(32768), HEAR_RATE)

    def aloud(self, show: Callable[[str], None]) -> "AnswerAloud":
        """Return what shows an answer and speaks it too."""
        return AnswerAloud(self, show)

    def speak(self, texts: Iterator[str], stopped: Callable[[], bool]) -> None:
        """Speak what comes until it ends, or is stopped; returns when it was heard."""
        said, seconds, began, ended, energy = list[str](), 0.0, time.perf_counter(), "stop", NOTHING
        player = subprocess.Popen(self._player, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert player.stdin is not None
        meter = self.speech.meter
        try:
            first = meter.begin()
            for clause, sound in self.speech.speak_clauses(texts, self._voice):
                last = meter.read()
                energy, first = energy + meter.between(first, last), last
                if stopped():
                    break
                said.append(clause)
                seconds += sound.seconds
                player.stdin.write(pcm16_of(resampled(sound, SPEAK_RATE)))
                player.stdin.flush()
        except (IngleError, OSError) as error:
            ended = "error"
            complain(error) if isinstance(error, IngleError) else note(f"({self._player[0]} ended: the answer is not spoken further)")
        finally:
            with suppress(OSError):
                player.stdin.close()
            while player.poll() is None and not stopped():
                time.sleep(0.02)
            player.kill()
            player.wait()
        ended = "cancelled" if stopped() else ended
        self._record(speak_event(self._key(), self._voice, said, seconds, time.perf_counter() - began, ended, energy if said else None))


class AnswerAloud:
    """One answer: each piece is shown, and spoken as soon as a clause is whole."""

    def __init__(self, voice: TerminalVoice, show: Callable[[str], None]) -> None:
        self._show, self._texts, self._stopped = show, queue.SimpleQueue[str | None](), False
        self._thread = threading.Thread(target=voice.speak, args=(iter(self._texts.get, None), lambda: self._stopped), daemon=True)
        self._thread.start()

    def __call__(self, text: str) -> None:
        """Show and speak the next piece."""
        self._show(text)
        self._texts.put(text)

    def end(self, heard: bool) -> None:
        """Wait until all was heard, unless it is not to be `heard`. Ctrl-C ends the voice."""
        self._stopped = not heard
        self._texts.put(None)
        try:
            while self._thread.is_alive():
                self._thread.join(0.1)
        except KeyboardInterrupt:
            self._stopped = True
            self._thread.join()


def _program(choices: tuple[tuple[str, ...], ...], act: str) -> list[str]:
    """Return the command of the first program that is installed. Raises ConfigError if there is none."""
    for command in choices:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    names = ", ".join(command[0] for command in choices)
    cure = "Debian's package alsa-utils brings arecord and aplay. The page needs neither: ingle serve"
    raise ConfigError("--voice", f"There is no program to {act} sound here ({names})", "", cure)
