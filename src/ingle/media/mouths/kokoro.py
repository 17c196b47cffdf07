"""Kokoro-82M (int8) by bare onnxruntime: 24,000 samples a second, 28 English voices.

It sounds better than Piper, and is slower than real time on two cores.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.media import Sound
from ingle.media.phonemes import Phonemes

MODEL = "kokoro-v1.0.int8.onnx"
RATE = 24_000
_LONGEST = 510  # phonemes that the net reads at once
_STYLE = 256
# The net's alphabet, as far as English needs it (hexgrad/Kokoro-82M, config.json).
_IDS = {
    ";": 1, ":": 2, ",": 3, ".": 4, "!": 5, "?": 6, "—": 9, "…": 10, '"': 11, "(": 12, ")": 13, "“": 14, "”": 15, " ": 16,
    "A": 24, "I": 25, "O": 31, "Q": 33, "S": 35, "T": 36, "W": 39, "Y": 41, "ᵊ": 42, "a": 43, "b": 44, "c": 45, "d": 46, "e": 47, "f": 48,
    "h": 50, "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "q": 59, "r": 60, "s": 61, "t": 62, "u": 63, "v": 64,
    "w": 65, "x": 66, "y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "ɔ": 76, "ð": 81, "ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87,
    "ɡ": 92, "ɪ": 102, "ŋ": 112, "θ": 119, "ɹ": 123, "ɾ": 125, "ʃ": 131, "ʧ": 133, "ʊ": 135, "ʌ": 138, "ʒ": 147, "ʔ": 148, "ˈ": 156,
    "ˌ": 157, "ː": 158, "ᵻ": 177,
}  # fmt: skip


@dataclass(frozen=True)
class Kokoro:
    """The net with its voices."""

    session: Any  # onnxruntime's
    folder: Path
    phonemes: Phonemes

    def say(self, text: str, speed: float, voice: str) -> Sound:
        """Return a clause as sound; empty where nothing of it can be spoken."""
        ids = [_IDS[sound] for sound in self.phonemes.of(text) if sound in _IDS][:_LONGEST]
        if not ids:
            return Sound(np.zeros(0, np.float32), RATE)
        styles = _styles(self.folder / f"{voice}.bin")  # one for each length of text
        inputs = {"tokens": np.array([[0, *ids, 0]], np.int64), "style": styles[len(ids) - 1], "speed": np.array([speed], np.float32)}
        return Sound(np.clip(self.session.run(None, inputs)[0].reshape(-1), -1.0, 1.0).astype(np.float32), RATE)


def open_kokoro(folder: Path, phonemes: Phonemes, threads: int) -> Kokoro:
    """Open the net in a folder of its part."""
    from ingle.media.mouths.net import open_session

    return Kokoro(open_session(folder / MODEL, threads), folder, phonemes)


@lru_cache(maxsize=4)
def _styles(path: Path) -> npt.NDArray[np.float32]:
    return np.fromfile(path, "<f4").reshape(-1, 1, _STYLE)
