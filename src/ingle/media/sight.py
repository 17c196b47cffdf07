"""The sights of kept models that a delta of the kind `sight` taught to see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import DeltaError, ShapeError
from ingle.core.media import Picture, Sight, SightPiece
from ingle.home.catalogue import PARTS
from ingle.home.parts import find_part
from ingle.home.place import Home
from ingle.kernels.tower import PackedProduct
from ingle.media.eyes.efficientnet import FEATURES, SIDE, Eye
from ingle.media.eyes.siglip import Siglip
from ingle.media.painter import unpack_lines, unpack_rows
from ingle.media.picture import MARKER, POOLED, TileSettings, colours, cut, normalised, pieces_of, pooled, square

# A sight made here: a frozen eye, heads that know words for what it sees, and a projector from its numbers to the model's own space.
# A picture becomes n vectors, in the place of n tokens, and a line of words: what it looks like, words that go with that, and colours. The
# vectors carry what words leave out; the words carry what a small projector has not learnt.
# Tensors of a delta of the kind `sight`, f the eye's numbers (views.pooled), k numbers after the reduction:
#     reduce.mean float16 [f], reduce.weight, .scale [k, f]    z = (x − mean) · Wᵀ, brought to length √k
#     names.lines, tags.lines uint8                            N names, and the words that go with each, a line each
#     names.weight, .scale [N, k]                              where each name lies; its score is the cosine
#     names.likeness float16 [1]                               cosine of two pictures from which on they count as alike
#     inner.weight, .scale [h, k], inner.bias float16 [h]      h = GELU(z · Wᵀ + b)
#     outer.weight, .scale [n · hidden, h + k + 1]             vectors = [h, z, 1] · Wᵀ
#     outer.places float16 [1]                                 n
#


Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
EYE = "efficientnet-lite0"
# How many names, and at the most how many other words, stand in a picture's line. With three names the model often answers with all three:
# it names 34 % of drawings right instead of 48 % (docs/media-sight.md).
NAMES, TAGS = 1, 6
# Names that vote for words, how much more the nearer ones count, and the share of votes that a word needs.
_NEAR, _SHARPNESS, _LEAST = 24, 25.0, 0.3


class Heads:
    """The heads and the projector of a delta, as matrices."""

    def __init__(self, tensors: Mapping[str, Array], hidden: int = 0) -> None:
        """`hidden`: numbers of the model's vectors; 0 = as the tensors say. Raises DeltaError for tensors that don't fit together."""
        self.mean = _row(tensors, "reduce.mean", POOLED * FEATURES)
        self.reduce = unpack_rows("reduce", tensors)
        k = len(self.reduce)
        self.near = unpack_rows("names", tensors)
        self.names = unpack_lines("names.lines", tensors, len(self.near))
        self.tags = tuple(tuple(line.split()) for line in unpack_lines("tags.lines", tensors, len(self.near)))
        self.inner, self.outer = unpack_rows("inner", tensors), unpack_rows("outer", tensors)
        self.inner_bias = _row(tensors, "inner.bias", len(self.inner))
        self.places, self.likeness = int(_row(tensors, "outer.places", 1)[0]), float(_row(tensors, "names.likeness", 1)[0])
        shapes = (self.reduce.shape[1], self.near.shape[1], self.inner.shape[1], self.outer.shape[1])
        if shapes != (POOLED * FEATURES, k, k, len(self.inner) + k + 1) or self.places < 1 or len(self.outer) % self.places:
            raise DeltaError("sight", "must hold matrices that fit together", shapes, "The delta is incomplete; make it again.")
        self.hidden = len(self.outer) // self.places
        if hidden not in (0, self.hidden):
            raise DeltaError("sight", f"must make vectors of {hidden} numbers for this model", self.hidden, "It was made for another one.")

    def reduced(self, numbers: Floats) -> Floats:
        """Return z of the eye's numbers: [..., 5 · 1280] → [..., k]."""
        return of_length(((numbers - self.mean) @ self.reduce.T).astype(np.float32))

    def vectors(self, z: Floats) -> Floats:
        """Return the vectors for one picture: [k] → [n, hidden]."""
        h = gelu(self.inner @ z + self.inner_bias)
        vectors: Floats = (self.outer @ np.concatenate([h, z, np.ones(1, np.float32)])).astype(np.float32)
        return vectors.reshape(self.places, self.hidden)

    def words(self, z: Floats) -> tuple[list[str], list[str]]:
        """Return the best names, the best first, and the words that go with what it looks like."""
        return said(self.near @ z / len(z) ** 0.5, self.names, self.tags)


def said(cosines: Floats, names: Sequence[str], tags: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the best names, and other words: the nearest names vote for theirs, each by how near it is."""
    near = best(cosines, _NEAR)
    votes = np.exp(_SHARPNESS * (cosines[near] - cosines[near[0]]))
    shares: dict[str, float] = {}
    for i, vote in zip(near, votes / votes.sum(), strict=True):
        for word in tags[i]:
            shares[word] = shares.get(word, 0.0) + float(vote)
    chosen = [names[i] for i in near[:NAMES]]
    spoken = {word for name in chosen[:1] for word in name.lower().split()}
    order = sorted((word for word in shares if word not in spoken), key=lambda word: (-shares[word], word))
    return chosen, [word for word in order if shares[word] >= _LEAST][:TAGS]


def gelu(x: Floats) -> Floats:
    """Return x · Φ(x), by its approximation with tanh (arXiv 1606.08415)."""
    y: Floats = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))
    return y


def of_length(z: Floats) -> Floats:
    """Return z brought to a length of √k, whatever the eye's numbers add up to."""
    y: Floats = z * (z.shape[-1] ** 0.5 / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-6))
    return y


def best(scores: Floats, count: int) -> list[int]:
    """Return the places of the largest scores, the largest first; of equals the first."""
    order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
    return order


def line_of(names: Sequence[str], tags: Sequence[str], colours: Sequence[str]) -> str:
    """Return the words that stand behind a picture's vectors."""
    said = ((names, "looks like"), (tags, "words"), (colours, "colours"))
    parts = [f"{label}: {', '.join(words)}" for words, label in said if words]
    return f" ({'; '.join(parts)})\n"


class ProjectedSight:
    """See `core.media.Sight`. The eye is opened with the first picture; threads may share it."""

    marker = ""

    def __init__(self, home: Home, delta: Delta, tensors: Mapping[str, Array]) -> None:
        """Raises DeltaError for tensors that don't fit together."""
        Heads(tensors)  # to see whether they fit; as matrices they take four times as much memory
        self._tensors, self._home, self._lock = tensors, home, Lock()
        self._last: tuple[str, Floats] = "", np.zeros(0, np.float32)
        self.digest = digest_json([delta.digest, PARTS[EYE].digest])

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        """See `core.media.Sight.see`."""
        with self._lock:
            z, heads = self._reduced(picture), self.heads
        return heads.vectors(z), line_of(*heads.words(z), colours(picture))

    @property
    def likeness(self) -> float:
        """See `core.media.Sight.likeness`."""
        return self.heads.likeness

    def fingerprint(self, picture: Picture, pieces: Sequence[SightPiece]) -> Floats:
        """See `core.media.Sight.fingerprint`."""
        with self._lock:
            z = self._reduced(picture)
        return z / np.linalg.norm(z)

    def _reduced(self, picture: Picture) -> Floats:
        """Return the k numbers of a picture; the last one's are remembered, for it is asked for twice."""
        if self._last[0] != picture.digest:
            self._last = picture.digest, self.heads.reduced(look(self.eye, picture))
        return self._last[1]

    @cached_property
    def heads(self) -> Heads:
        """The delta's matrices."""
        return Heads(self._tensors)

    @cached_property
    def eye(self) -> Eye:
        """The eye. Raises NotKept where its weights aren't in this home."""
        return open_eye(self._home)


def open_eye(home: Home, threads: int | None = None) -> Eye:
    """Open the eye's weights. Raises NotKept with the command that brings them, HomeError for a damaged file."""
    folder = find_part(home, EYE)
    return Eye(folder / PARTS[EYE].files[0].name, threads)


def look(eye: Eye, picture: Picture) -> Floats:
    """Return the eye's numbers of a picture: float32 [5 · 1280]."""
    return pooled(eye.look(square(picture, SIDE)))


def _row(tensors: Mapping[str, Array], name: str, count: int) -> Floats:
    values = tensors.get(name)
    if values is None or values.shape != (count,):
        raise DeltaError(f"tensor {name}", f"must hold {count} numbers", "" if values is None else values.shape, "Make the delta again.")
    return values.astype(np.float32)


def open_sight(home: Home, delta: Delta, tensors: Mapping[str, npt.NDArray[Any]]) -> Sight:
    """Return the sight of a delta with these tensors; its encoder's weights lie in the home and are opened with the first picture.

    Raises DeltaError for tensors that don't fit, and for an encoder that this version doesn't know.
    """
    if delta.origin.get("eye") == EYE:
        return ProjectedSight(home, delta, tensors)
    raise DeltaError(f"delta {delta.name}", "needs an encoder of pictures that this version doesn't know", delta.origin.get("eye", ""))


# From an eye's features to the language model's vectors: neighbours are joined, then comes one linear (Idefics3, arXiv 2408.12637).


def neighbours_joined(features: Array, factor: int) -> Array:
    """Join squares of factor² features of a square picture: [side², d] → [side² / factor², d · factor²], line by line.

    Raises ShapeError unless the side is a multiple of `factor`. (transformers calls it a pixel shuffle.)
    """
    count, d = features.shape
    side = round(count**0.5)
    if side**2 != count or side % factor:
        raise ShapeError("features", f"must be those of a square whose side is a multiple of {factor}", count)
    less = side // factor
    return features.reshape(less, factor, less, factor * d).swapaxes(1, 2).reshape(less * less, factor * factor * d)


# The sight of models of Idefics3's kind: tiles, an eye, neighbours joined, one linear. Its weights are opened by the first picture.


_VERSION = 1  # changes whenever a picture's vectors change


@dataclass(frozen=True, eq=False)
class Gaze:
    """An opened eye and what connects it to the language model."""

    eye: Siglip
    joined: int  # neighbours that are joined, on a side
    connection: PackedProduct

    def __call__(self, pixels: npt.NDArray[np.float32], threads: int) -> npt.NDArray[np.float32]:
        """Return vectors float32 [n, hidden] of the language model for pixels float32 [tile_px, tile_px, 3]."""
        return self.connection(neighbours_joined(self.eye(pixels, threads), self.joined), threads)


class TiledSight:
    """Implements `core.media.Sight`. Thread-safe."""

    marker = MARKER
    # Strict, because these models come without pictures on which it could be measured: a memory that is not placed does no harm.
    likeness = 0.95

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
