"""The sight of models of Idefics3's kind: tiles, an eye, neighbours joined, one linear. Its weights are opened by the first picture."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.media import Picture, SightPiece
from ingle.media.connector import neighbours_joined
from ingle.media.encoder import PackedProduct, usable_threads
from ingle.media.eyes.siglip import Siglip
from ingle.media.tiles import MARKER, Tiles, TileSettings, cut, normalised, pieces_of

_VERSION = 1
"""Changes whenever a picture's vectors change."""


_NEVER = 1.01


@dataclass(frozen=True, eq=False)
class Gaze:
    """An opened eye and what connects it to the language model."""

    eye: Siglip
    joined: int
    """Neighbours that are joined, on a side."""
    connection: PackedProduct

    def connect(self, features: npt.NDArray[np.float32], threads: int) -> npt.NDArray[np.float32]:
        """Return vectors float32 [n, hidden] of the language model for an eye's features [patches, d]."""
        return np.ascontiguousarray(self.connection(neighbours_joined(features, self.joined), threads))


class TiledSight:
    """Implements `core.media.Sight`. Thread-safe."""

    marker = MARKER
    likeness = _NEVER
    """Only the same picture is like a picture: what these eyes find alike has not been measured."""

    def __init__(
        self, weights: str, settings: TileSettings, controls: frozenset[str], open_: Callable[[], Gaze], threads: int | None = None
    ) -> None:
        """weights: digest of the eye's weights and their format; controls: the model's control tokens; `open_` opens the weights."""
        self.digest = digest_json([_VERSION, weights, repr(settings)])
        self._settings, self._controls, self._open, self._threads = settings, controls, open_, threads or usable_threads()
        self._gaze: Gaze | None = None
        self._whole: tuple[str, npt.NDArray[np.float32]] | None = None
        self._lock = Lock()

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        """Return the pieces that stand for a picture. Raises ConfigError where Pillow is missing, CheckpointError for damaged weights."""
        tiles = cut(picture, self._settings)
        with self._lock:
            features = [self._look(pixels) for pixels in tiles.pixels[:-1]] + [self._look_at_whole(picture, tiles)]
            vectors = [self._opened().connect(one, self._threads) for one in features]
        return pieces_of(tiles, vectors, self._controls)

    def fingerprint(self, picture: Picture) -> npt.NDArray[np.float32]:
        """Return the mean feature of the whole picture, of length 1. Raises as `see` does."""
        tiles = cut(picture, self._settings)
        with self._lock:
            mean = self._look_at_whole(picture, tiles).mean(axis=0)
        mark: npt.NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return mark

    def _opened(self) -> Gaze:
        self._gaze = self._gaze or self._open()
        return self._gaze

    def _look(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self._opened().eye(normalised(pixels, self._settings), self._threads)

    def _look_at_whole(self, picture: Picture, tiles: Tiles) -> npt.NDArray[np.float32]:
        """Return the features of the whole picture; the last one's are remembered, because both `fingerprint` and `see` want them."""
        if self._whole is None or self._whole[0] != picture.digest:
            self._whole = picture.digest, self._look(tiles.pixels[-1])
        return self._whole[1]
