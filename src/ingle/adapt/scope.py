"""How near a question is to questions that were taught: 1 for the same one, in whatever words; near 0 for all others, however alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ACTS = 0.8
"""Score from which on a lesson acts."""
RECALLS = 0.5
"""Score from which on a memory is placed in the prompt."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PLAIN = frozenset(
    _WORD.findall("""
    a an the of in on at to for from by with and or is are was were be been am do does did has have had can could would will shall should
    may might must it its this that these those there i me my you your we our they their he she his her him them as so if then than
    please tell know what who whom whose which when where why how much many s t re ve ll d m
    """)
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Scores questions."""

    def score(self, question: str, taught: Sequence[str]) -> Array:
        """[len(taught)], each in [0, 1]."""
        asked = words_of(question)
        return np.array([_overlap(asked, words_of(other)) for other in taught], np.float64)


def words_of(text: str) -> frozenset[str]:
    """The words that carry what a text is about."""
    found = [word.lower().replace("’", "'").removesuffix("'s") for word in _WORD.findall(text)]
    return frozenset(word for word in found if word not in _PLAIN) or frozenset(found)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0
