"""Whose turn it is: finds where somebody begins and ends to speak, by the energy in the band of voices above the noise of the room.

The noise of the room is the level below which a tenth of the last seconds lies, so a steady fan is no speech for longer than that. A
click is too short to begin a turn. It knows voices from silence, not from music.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingle.core.errors import RequestError

FRAME_S = 0.02
_BAND_HZ = (200.0, 4000.0)
_FLOOR_S, _FLOOR_SHARE = 4.0, 0.1
"""Seconds over which the noise is judged, and the share of them that is taken to be noise."""
_FIRST_FLOOR, _FIRST_FRAMES = -62.0, 8
"""Noise of the room (dB below full scale) before anything was heard, and for how many frames it counts."""
_LEAST_DB = -52.0
"""Level below which nothing is speech, however quiet the room is."""
_EASIEST_DB, _HARDEST_DB = 3.0, 21.0
"""Distance from the noise at threshold 0 and 1."""
_HOLDS_DB = 3.0
"""Once somebody speaks, so much less is still speech."""
_BEGIN_FRAMES, _OF_FRAMES = 4, 6
QUIET_S = 0.2
"""A pause after which it is worth listening ahead: it may be the end."""


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """When a turn begins and ends."""

    threshold: float = 0.5
    """0 = every sound is speech, 1 = only a loud voice."""
    prefix_s: float = 0.3
    """Sound before the beginning that belongs to it."""
    silence_s: float = 0.5
    """A pause that ends a turn."""

    def __post_init__(self) -> None:
        limits = {"threshold": (0.0, 1.0), "prefix_s": (0.0, 5.0), "silence_s": (0.1, 10.0)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise RequestError(f"turn_detection.{name}", f"must be between {low} and {high}", getattr(self, name))


@dataclass(frozen=True, slots=True)
class TurnChange:
    """Something that changed."""

    kind: Literal["began", "quiet", "ended"]
    """`quiet`: a pause that may become the end."""
    at_s: float
    """From the beginning of the stream: where the turn begins with its prefix, or where its last sound ended."""


class TurnDetector:
    """Listens to a stream of sound."""

    def __init__(self, rate: int, settings: TurnSettings = TurnSettings()) -> None:
        self.settings, self._rate, self._frame = settings, rate, round(rate * FRAME_S)
        self._window = np.hanning(self._frame).astype(np.float32)
        self._full_scale = self._frame * float(np.square(self._window).sum()) / 2
        hertz = np.fft.rfftfreq(self._frame, 1 / rate)
        self._band = (hertz >= _BAND_HZ[0]) & (hertz <= _BAND_HZ[1])
        self._levels: deque[float] = deque([_FIRST_FLOOR] * _FIRST_FRAMES, maxlen=round(_FLOOR_S / FRAME_S))
        self._lately: deque[bool] = deque(maxlen=_OF_FRAMES)
        self._rest = np.empty(0, np.float32)
        self._frames, self._spoke = 0, 0
        self._speaking = self._quiet = False

    @property
    def speaking(self) -> bool:
        """Whether it is the speaker's turn."""
        return self._speaking

    def feed(self, samples: npt.NDArray[np.float32]) -> list[TurnChange]:
        """Take more of the stream; returns what changed in it."""
        waiting = np.concatenate([self._rest, samples])
        count = len(waiting) // self._frame
        self._rest = waiting[count * self._frame :]
        if not count:
            return []
        frames = waiting[: count * self._frame].reshape(count, self._frame) * self._window
        power = np.square(np.abs(np.fft.rfft(frames, axis=1))[:, self._band]).sum(axis=1) / (
            self._frame * np.square(self._window).sum() / 2
        )
        levels = 10 * np.log10(power + 1e-10)
        return [change for level in levels for change in self._take(float(level))]

    def _take(self, level: float) -> list[TurnChange]:
        self._frames += 1
        self._levels.append(level)
        above = _EASIEST_DB + (_HARDEST_DB - _EASIEST_DB) * self.settings.threshold - (_HOLDS_DB if self._speaking else 0.0)
        floor = sorted(self._levels)[int(len(self._levels) * _FLOOR_SHARE)]
        voiced = level > max(floor + above, _LEAST_DB)
        self._lately.append(voiced)
        if not self._speaking:
            if voiced and sum(self._lately) >= _BEGIN_FRAMES:
                self._speaking, self._quiet, self._spoke = True, False, self._frames
                return [TurnChange("began", max(0.0, self._now - _OF_FRAMES * FRAME_S - self.settings.prefix_s))]
            return []
        if voiced:
            self._spoke, self._quiet = self._frames, False
            return []
        silent_s, ended_s = (self._frames - self._spoke) * FRAME_S, self._spoke * FRAME_S
        if silent_s >= self.settings.silence_s - FRAME_S / 2:
            self._speaking = False
            self._lately.clear()
            return [TurnChange("ended", ended_s)]
        if silent_s >= QUIET_S - FRAME_S / 2 and not self._quiet:
            self._quiet = True
            return [TurnChange("quiet", ended_s)]
        return []

    @property
    def _now(self) -> float:
        return self._frames * FRAME_S
