"""The colours of a picture, by name: what stands out from its ground."""

import numpy as np
import numpy.typing as npt

from ingle.core.media import Picture

_GREYS = (("black", 0.22), ("grey", 0.8), ("white", 1.01))
"""Names of pixels without much colour, by how light they are at the most."""
_HUES = (
    ("red", 14), ("orange", 40), ("yellow", 68), ("green", 165), ("turquoise", 195), ("blue", 255), ("purple", 295), ("pink", 342),
    ("red", 361),
)  # fmt: skip
"""Names of hues, by their last degree."""
_LEAST, _MOST = 0.12, 3
"""The smallest share of what is not ground that a colour must have, and how many are named."""
_SAMPLE = 64


def colours(picture: Picture) -> tuple[str, ...]:
    """Return the names of up to three colours, the largest first. The ground (the border's most frequent colour) is left out."""
    pixels = picture.pixels
    step = max(1, max(pixels.shape[:2]) // _SAMPLE)
    small = pixels[::step, ::step].astype(np.float32) / np.float32(255)
    names = _named(small)
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = np.median(edge, axis=0)
    inside = np.abs(small - ground).max(axis=2) > 0.1
    seen = names[inside] if inside.mean() > 0.02 else names.ravel()
    words, counts = np.unique(seen, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return tuple(str(words[i]) for i in order if counts[i] >= _LEAST * len(seen))


def _named(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.str_]:
    """Return the name of each pixel's colour: [height, width, 3] in 0 … 1 → [height, width]."""
    high, low = pixels.max(2), pixels.min(2)
    spread = high - low
    r, g, b = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(high == r, (g - b) / safe % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    names = np.empty(hue.shape, "<U9")
    for name, last in reversed(_HUES):
        names[hue < last] = name
    brown = (hue >= 10) & (hue < 45) & (high < 0.68)
    names[brown] = "brown"
    grey = spread < np.maximum(0.1, 0.18 * high)
    for name, lightest in reversed(_GREYS):
        names[grey & (high < lightest)] = name
    names[high < _GREYS[0][1]] = "black"
    return names
