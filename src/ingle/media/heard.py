"""Heard words with their times."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeardWord:
    """One word."""

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
    words: tuple[HeardWord, ...] = ()
    """Empty unless they were asked for."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The words of a recording."""

    text: str
    language: str
    """ISO 639-1, as Whisper names it; empty where nothing is said."""
    seconds: float
    """Length of the recording."""
    segments: tuple[HeardSegment, ...] = ()
    model: str = ""
    """The name of the part that heard it."""


@dataclass(frozen=True, slots=True)
class Window:
    """The words of a part of a recording, with times from its own beginning."""

    language: str
    used_s: float
    """Where the next window begins."""
    segments: tuple[HeardSegment, ...]
    confidence: float = 0.0
    """Mean log-probability of its tokens; 0 where surely nobody speaks."""
