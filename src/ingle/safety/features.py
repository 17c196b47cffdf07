"""Texts as linear judges see them: sparse vectors of hashed n-grams of characters and words; and what an encoder knows of their meaning.

The encoder is a small one that was tuned on requests (`learn/guard_encoder.py` made the file). N-grams know words; the encoder knows that
other words say the same. It is part of a judge, which was measured with this encoder and no other. Where it can't run, the judge goes by
n-grams alone, under thresholds of their own, and the log says so.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ingle.core.errors import IngleError
from ingle.model.text_encoder import TextEncoder, load_encoder, shipped_words

SIZE = 1 << 17  # features; n-grams are hashed to them
_MOST_CHARACTERS = 8000
WORD = re.compile(r"[a-z']+|[0-9]+|[^\w\s]")


Sparse = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # places and values; the vector has length 1


def grams(text: str, characters: tuple[int, int] = (3, 5), words: int = 2, mark: str = "") -> npt.NDArray[np.int64]:
    """Return the feature of every n-gram, as often as it comes. `mark` tells the grams of one part of an input from another's."""
    text = f" {' '.join(text[:_MOST_CHARACTERS].lower().replace('’', chr(39)).split())} "
    letters = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    tokens = np.array([crc32(token.encode("utf-8", "replace")) for token in WORD.findall(text)], np.uint64)
    low, high = characters
    found = [gram_runs(letters, size, f"c{mark}") for size in range(low, high + 1)]
    return np.concatenate([*found, *(gram_runs(tokens, size, f"w{mark}") for size in range(1, words + 1))])


def gram_runs(items: npt.NDArray[np.uint64], size: int, kind: str) -> npt.NDArray[np.int64]:
    """Return the feature of every run of so many items: multiply and mix, as in splitmix64; overflow is meant."""
    count = max(0, len(items) - size + 1)
    mixed = np.full(count, crc32(f"{kind}{size}".encode()), np.uint64)
    for at in range(size):
        mixed = (mixed ^ items[at : at + count]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(40)).astype(np.int64) % SIZE


def vector(*features: npt.NDArray[np.int64]) -> Sparse:
    """Return how often each feature comes as one vector: logarithms, scaled to length 1."""
    places, counts = np.unique(np.concatenate(features), return_counts=True)
    values = np.log1p(counts.astype(np.float64))
    return places, (values / max(float(np.sqrt((values**2).sum())), 1e-9)).astype(np.float32)


def logit(weights: npt.NDArray[np.float32], bias: float, text: Sparse) -> float:
    places, values = text
    return float(weights[places].astype(np.float64) @ values) + bias


def stacked(texts: Iterable[Sparse]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return many vectors as one list of places and values, and where each begins."""
    items = list(texts)
    starts = np.cumsum([0, *(len(places) for places, _ in items[:-1])])
    return np.concatenate([places for places, _ in items]), np.concatenate([values for _, values in items]), starts


FOLDER = Path(__file__).parent
WEIGHTS_FILE = "meaning.safetensors"
LONGEST = 96  # tokens of a text that are read; of a longer one, the first


@dataclass(frozen=True)
class Meaning:
    encoder: TextEncoder
    digest: str

    def read(self, text: str) -> float:
        """Return the log-odds that a text asks for harm."""
        weight, bias = self.encoder.head
        return float((weight @ self.encoder.mean(text, LONGEST) + bias)[0])


def load_meaning(digest: str, folders: Sequence[Path] = (FOLDER,)) -> Meaning | None:
    """Return the encoder of a digest that lies in one of the folders and runs here; None if none does, and the log says why."""
    for folder in folders:
        path = folder / WEIGHTS_FILE
        found = _load(path, path.stat().st_mtime_ns) if path.exists() else None
        if found is not None and found.digest == digest:
            return found
    _say_once(f"the encoder {digest[:12]} of the guards' judge is not here or does not run: it goes by n-grams alone")
    return None


def meaning_digest(path: Path) -> str:
    """Return the digest of an encoder: of its file, and of the words that it was tuned with. Raises OSError without them."""
    return hashlib.sha256(hashlib.sha256(path.read_bytes()).digest() + bytes.fromhex(shipped_words().digest)).hexdigest()


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> Meaning | None:
    try:
        found = Meaning(load_encoder(path), meaning_digest(path))
        found.read("Does it run?")
    except (OSError, ValueError, LookupError, IngleError) as error:
        _say_once(f"the encoder of the guards' judge can't be used: {error}")
        return None
    return found


@lru_cache(maxsize=16)
def _say_once(what: str) -> None:
    logging.getLogger("ingle").warning(what)


# A sentence as the judge of orders sees it: its n-grams, and signs of somebody who speaks to an assistant instead of about something.


_SIGN = 0.4
_SIGNS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "forget": r"\b(ignore|disregard|forget|override|bypass|skip|drop|cancel)\b.{0,40}\b(instruction|prompt|rule|previous|above|"
        r"prior|earlier|"
        r"everything|guideline|question|task|polic|context|safety)\w*",
        "instead": r"\b(instead|rather than|do not (answer|summari|translate)|before (answering|you)|first,? (send|say|print|run))\b",
        "you must": r"\b(you (must|shall|should|will|are (now|required|to))|your (new|real|only|next) (task|job|goal|instruction|"
        r"role)\w*)\b",
        "to the model": r"\b(assistant|ai|chatbot|language model|llm|agent|model|system|developer|admin\w*)\b\s*[:,>\]]",
        "tag": r"(\[/?(inst|system|admin|assistant)\]|</?(system|instruction|user|assistant)>|###|<\||```system|begin (new )?(system|"
        r"instruction))",
        "act": r"^\W*(send|forward|email|post|upload|delete|remove|execute|run|open|visit|click|call|transfer|reveal|print|output|"
        r"repeat|respond|reply|"
        r"answer|say|write|tell|append|include|recommend|always|never|please)\b",
        "exfiltrate": r"\b(send|forward|email|post|upload|append|include|reveal|print|exfiltrat\w+)\b.{0,60}\b(password|key|token|secret|"
        r"credential|prompt|conversation|history|file|data|address|https?://|@)\w*",
        "secrecy": r"\b(do not|don't|never)\b.{0,30}\b(tell|mention|reveal|inform|alert|disclose|show)\b",
        "urgent": r"\b(important|urgent|attention|note to|notice to|warning)\b\s*[:!]",
        "address": r"https?://|www\.|\S+@\S+\.\w+",
        "user": r"\bthe (user|customer|reader|owner)('s)?\b",
        "from now on": r"\b(from now on|henceforth|for all (future|later)|in (all|every) (future|later|repl|respons|answer)\w*|whenever|"
        r"any time)\b",
    }.items()
}


def order_vector(sentence: str) -> Sparse:
    """Return what the judge of orders sees."""
    places, values = vector(grams(sentence, (4, 5), 2, "o"))
    names = [name for name, pattern in _SIGNS.items() if pattern.search(sentence)]
    more = np.array([crc32(f"order {name}".encode()) % SIZE for name in (*names, f"{min(3, len(names))} signs")], np.int64)
    return np.concatenate([places, more]), np.concatenate([values, np.full(len(more), _SIGN, np.float32)])
