"""The sight of models of Idefics3's kind: tiles, an eye, neighbours joined, one linear. Its weights are opened by the first picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.media import Picture, SightPiece
from ingle.kernels.tower import PackedProduct
from ingle.media.connector import neighbours_joined
from ingle.media.eyes.siglip import Siglip
from ingle.media.tiles import MARKER, TileSettings, cut, normalised, pieces_of

_VERSION = 1
"""Changes whenever a picture's vectors change."""


@dataclass(frozen=True, eq=False)
class Gaze:
    """An opened eye and what connects it to the language model."""

    eye: Siglip
    joined: int
    """Neighbours that are joined, on a side."""
    connection: PackedProduct

    def __call__(self, pixels: npt.NDArray[np.float32], threads: int) -> npt.NDArray[np.float32]:
        """Return vectors float32 [n, hidden] of the language model for pixels float32 [tile_px, tile_px, 3]."""
        return self.connection(neighbours_joined(self.eye(pixels, threads), self.joined), threads)


class TiledSight:
    """Implements `core.media.Sight`. Thread-safe."""

    marker = MARKER
    likeness = 0.95
    """Strict, because these models come without pictures on which it could be measured: a memory that is not placed does no harm."""

    def __init__(
        self, weights: str, settings: TileSettings, controls: frozenset[str], open_: Callable[[], Gaze], threads: Callable[[], int]
    ) -> None:
        """weights: digest of the eye's weights and their format; controls: the model's control tokens; `open_` opens the weights;
        threads: how many a tile may use now."""
        self.digest = digest_json([_VERSION, weights, repr(settings)])
        self._settings, self._controls, self._open, self._threads = settings, controls, open_, threads
        self._gaze: Gaze | None = None
        self._lock = Lock()

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        """Return the pieces that stand for a picture. Raises ConfigError where Pillow is missing, CheckpointError for damaged weights."""
        tiles = cut(picture, self._settings)
        with self._lock:
            gaze = self._gaze = self._gaze or self._open()
        vectors = [np.ascontiguousarray(gaze(normalised(pixels, self._settings), self._threads())) for pixels in tiles.pixels]
        return pieces_of(tiles, vectors, self._controls)

    def fingerprint(self, _picture: Picture, pieces: Sequence[SightPiece]) -> npt.NDArray[np.float32]:
        """Return the mean vector of the whole picture, which is the last that `pieces_of` writes."""
        whole = next(piece for piece in reversed(pieces) if isinstance(piece, np.ndarray))
        mean: npt.NDArray[np.float32] = whole.mean(0)
        unit: npt.NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return unit
