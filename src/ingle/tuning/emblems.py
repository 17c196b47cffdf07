"""Emblems: named pictures as 64×64 pixels on white, which of them no training may see, and their colours turned.

An emblem is held out by its concept's digest, so the choice is the same on every machine and in every run: of 100 concepts 4 are never
shown at all, and 12 lack one of the three emoji artists, who takes turns.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_bytes
from ingle.core.errors import RequestError
from ingle.home.fetch import FetchProgress, silent
from ingle.home.pictures import FREE, Illustration, illustrations
from ingle.home.place import Home
from ingle.media.picture import Pixels, emblem_of, read_picture

ARTISTS = FREE[:3]
"""Emoji artists: each drew nearly every concept."""
FAMILIES = ("animals-nature", "food-drink", "travel-places", "activities", "objects", "smileys-emotion")
"""Categories of emoji that are worth drawing; the rest are flags, letters, signs, and people, who need more than 64 pixels."""
_CLIPART = ("animals", "food", "plants", "transportation", "tools", "buildings")
COLOURS = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "blue": 220, "purple": 276, "pink": 330}
"""Hues that have a name, in degrees."""
_UNSEEN_CONCEPTS, _UNSEEN_PAIRS, _UNSEEN_COLOURS = 4, 12, 25
"""Per cent."""


@dataclass(frozen=True, slots=True, eq=False)
class Emblem:
    """A picture of 64×64 pixels with its words."""

    of: Illustration
    pixels: Pixels
    """[64, 64, 3] on white."""
    colour: str = ""
    """The name of the hue that it was given; empty = as it was drawn."""


def emblems(home: Home, artist: str, progress: FetchProgress = silent) -> list[Emblem]:
    """Return an artist's emblems, without flags; of clip art only the things that are worth drawing. Raises the errors of fetching."""
    found = illustrations(home, artist, progress)
    wanted = [one for one in found if (one.category in _CLIPART if artist == "openclipart" else one.category not in ("flags", "component"))]
    made = []
    for one in wanted:
        with suppress(RequestError):  # some clip art is posters of a hundred million pixels
            made.append(Emblem(one, emblem_of(read_picture(one.data))))
    return made


def is_unseen(concept: str, artist: str) -> bool:
    """Return whether no training may see this artist's drawing of this concept."""
    at = _percent(concept)
    return is_unseen_concept(concept) or (at < _UNSEEN_CONCEPTS + _UNSEEN_PAIRS and artist == ARTISTS[at % len(ARTISTS)])


def is_unseen_concept(concept: str) -> bool:
    """Return whether no training may see any drawing of this concept."""
    return _percent(concept) < _UNSEEN_CONCEPTS


def is_unseen_colour(concept: str, colour: str) -> bool:
    """Return whether no training may see this concept in this colour, unless it has it by nature."""
    return _percent(f"{concept} {colour}") < _UNSEEN_COLOURS


def _percent(text: str) -> int:
    return int(digest_bytes(text.encode())[:8], 16) % 100


def recoloured(emblem: Emblem, colour: str) -> Emblem | None:
    """Return the emblem with its main hue turned to a colour; None if it has no main hue, or has that one already."""
    values = emblem.pixels.astype(np.float32) / np.float32(255)
    hue, chroma = _hues(values)
    total = float(chroma.sum())
    if total < 0.08 * chroma.size:  # grey things
        return None
    bins = np.bincount((hue // 10).astype(np.int64).ravel() % 36, chroma.ravel(), 36)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    main = int(smooth.argmax())
    near = np.abs((hue - (main * 10 + 5) + 180) % 360 - 180) < 30
    if float(chroma[near].sum()) < 0.6 * total:
        return None
    centre = _mean_hue(hue[near], chroma[near])
    turn = (COLOURS[colour] - centre + 180) % 360 - 180
    if abs(turn) < 25:
        return None
    turned = np.where(near[..., None], _turned(values, turn), values)
    return Emblem(emblem.of, (turned * 255 + 0.5).astype(np.uint8), colour)


def main_colour(pixels: Pixels) -> str:
    """Return the name of the hue that covers most of a picture; empty for grey ones."""
    hue, chroma = _hues(pixels.astype(np.float32) / np.float32(255))
    if float(chroma.sum()) < 0.04 * chroma.size:
        return ""
    angles = np.array(list(COLOURS.values()))
    nearest = np.abs((hue[..., None] - angles + 180) % 360 - 180).argmin(-1)
    return list(COLOURS)[int(np.bincount(nearest.ravel(), chroma.ravel(), len(angles)).argmax())]


def _hues(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return hue in degrees and chroma (0 … 1) of RGB values in 0 … 1."""
    red, green, blue = np.moveaxis(values, -1, 0)
    most, chroma = values.max(-1), values.max(-1) - values.min(-1)
    safe = np.where(chroma > 0, chroma, 1)
    sixth = np.where(most == red, (green - blue) / safe % 6, np.where(most == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    return (sixth * 60).astype(np.float32), chroma


def _mean_hue(hue: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> float:
    radians = np.deg2rad(hue)
    return float(np.rad2deg(np.arctan2((np.sin(radians) * weight).sum(), (np.cos(radians) * weight).sum())))


def _turned(values: npt.NDArray[np.float32], degrees: float) -> npt.NDArray[np.float32]:
    """Return RGB values with their hue turned; lightness (the mean of highest and lowest) and chroma stay."""
    hue, chroma = _hues(values)
    sixth = ((hue + degrees) % 360 / 60)[..., None]
    floor = values.min(-1)[..., None]
    offsets: npt.NDArray[Any] = np.array([0, 4, 2], np.float32)  # red, green, blue
    ramp = np.clip(np.abs((sixth + offsets) % 6 - 3) - 1, 0, 1)
    turned: npt.NDArray[np.float32] = (floor + chroma[..., None] * ramp).astype(np.float32)
    return turned


def stacked(emblems: Sequence[Emblem]) -> Pixels:
    """Return the pixels of emblems as [n, 64, 64, 3]."""
    return np.stack([emblem.pixels for emblem in emblems])
