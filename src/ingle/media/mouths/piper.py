"""Piper voices (VITS) by bare onnxruntime: 22,050 samples a second, 4 to 8 times faster than real time on two cores.

Piper's own program takes its phonemes from espeak-ng (GPL). Here they come from our dictionary, and are translated into what espeak-ng
would have written, because that is what these voices were trained on.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingle.core.media import Sound
from ingle.media.phonemes import VOWELS, Phonemes

MODEL = "en_US-joe-medium.onnx"
_PAUSES = str.maketrans({"—": ",", "…": ".", "(": ",", ")": ","})
_SOUNDS = {
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "W": "aʊ", "Y": "ɔɪ", "ʤ": "dʒ", "ʧ": "tʃ", "T": "ɾ", "ᵊ": "ə",
    "u": "uː", "ɑ": "ɑː", "ɔ": "ɔː", "ɜ": "ɜː",
}  # fmt: skip
_BEGIN, _END, _GAP = "^", "$", "_"


@dataclass(frozen=True)
class Piper:
    """One voice."""

    session: Any  # onnxruntime's
    ids: dict[str, int]
    rate: int
    scales: tuple[float, float, float]  # how much the sound varies, seconds for a sound (1 = as trained), how much the rhythm varies
    phonemes: Phonemes

    def say(self, text: str, speed: float, _voice: str) -> Sound:
        """Return a clause as sound; empty where nothing of it can be spoken."""
        symbols = unicodedata.normalize("NFD", as_espeak(self.phonemes.of(text)))
        known = [self.ids[symbol] for symbol in symbols if symbol in self.ids]
        if not known:
            return Sound(np.zeros(0, np.float32), self.rate)
        gap = self.ids[_GAP]
        framed = np.full((1, 2 * len(known) + 3), gap, np.int64)
        framed[0, 0], framed[0, -1], framed[0, 2:-1:2] = self.ids[_BEGIN], self.ids[_END], known
        variety, length, rhythm = self.scales
        scales = np.array([variety, length / speed, rhythm], np.float32)
        inputs = {"input": framed, "input_lengths": np.array([framed.shape[1]], np.int64), "scales": scales}
        return Sound(np.clip(self.session.run(None, inputs)[0].reshape(-1), -1.0, 1.0).astype(np.float32), self.rate)


def open_piper(folder: Path, phonemes: Phonemes, threads: int) -> Piper:
    """Open the voice in a folder of its part."""
    from ingle.media.mouths.net import open_session

    about = json.loads((folder / f"{MODEL}.json").read_bytes())
    style = about["inference"]
    scales = (float(style["noise_scale"]), float(style["length_scale"]), float(style["noise_w"]))
    ids = {symbol: int(found[0]) for symbol, found in about["phoneme_id_map"].items()}
    return Piper(open_session(folder / MODEL, threads), ids, int(about["audio"]["sample_rate"]), scales, phonemes)


def as_espeak(phonemes: str) -> str:
    """Translate the dictionary's alphabet into espeak-ng's for American English."""
    text = phonemes.translate(_PAUSES)
    vowels = "".join(VOWELS)
    text = re.sub(f"ɜɹ(?![{vowels}])", "ɜ", text)
    text = re.sub(f"əɹ(?![{vowels}])", "ɚ", text)
    words = (_long_vowels(word) for word in text.split(" "))
    return "".join(_SOUNDS.get(sound, sound) for sound in " ".join(words))


def _long_vowels(word: str) -> str:
    """Mark the i that espeak-ng writes long: in a syllable with stress or before it, and where a word has no other vowel."""
    out = []
    for place, sound in enumerate(word):
        out.append(sound)
        if sound != "i" or word[place + 1 : place + 2] == "ə":
            continue
        before, after = word[:place], word[place + 1 :]
        stress = max(before.rfind("ˈ"), before.rfind("ˌ"))
        if stress >= 0:
            long = not set(before[stress + 1 :]) & VOWELS
        else:
            long = bool(set(after) & set("ˈˌ")) or not set(before + after) & VOWELS
        if long:
            out.append("ː")
    return "".join(out)
