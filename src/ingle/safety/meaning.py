"""The meaning of a text, for the judge of harm: a small encoder that was tuned on requests (`learn/guard_encoder.py` made the file).

N-grams know words; the encoder knows that other words say the same. It is part of a judge, which was measured with this encoder and no
other. Where it can't run, the judge goes by n-grams alone, under thresholds of their own, and the log says so.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ingle.core.errors import IngleError
from ingle.model.text_encoder import TextEncoder, load_encoder, shipped_words

FOLDER = Path(__file__).parent
WEIGHTS_FILE = "meaning.safetensors"
LONGEST = 96  # tokens of a text that are read; of a longer one, the first


@dataclass(frozen=True)
class Meaning:
    """An encoder with its head."""

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
