"""A sight made here: a frozen eye, heads that know words for what it sees, and a projector from its numbers to the model's own space.

A picture becomes n vectors, in the place of n tokens, and a line of words: names of things that it looks like, and words that go with it.
The vectors carry what words leave out; the words carry what a small projector has not learnt.

Tensors of a delta of the kind `sight`, f the eye's numbers (views.pooled), k numbers after the reduction:

    reduce.mean float16 [f], reduce.weight, .scale [k, f]          z = (x − mean) · Wᵀ, brought to length √k
    names.lines, names.weight, .scale [N, k], names.bias float16   a score for each name
    tags.lines, tags.weight, .scale [V, k], tags.bias float16      the same for words
    inner.weight, .scale [h, k], inner.bias float16                h = GELU(z · Wᵀ + b)
    outer.weight, .scale [n · hidden, h + k + 1]                   vectors = [h, z, 1] · Wᵀ
"""

from collections.abc import Mapping
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import DeltaError, NotKept
from ingle.core.media import Picture, SightPiece
from ingle.home.catalogue import EYES
from ingle.home.place import Home
from ingle.media.eyes.efficientnet import FEATURES, SIDE, Eye
from ingle.media.packed_rows import unpack_lines, unpack_rows
from ingle.media.views import PARTS, pooled, square

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
EYE = "efficientnet-lite0"
NAMES, TAGS = 3, 5
"""How many names, and how many words, stand in a picture's line."""


class Heads:
    """The heads and the projector of a delta, as matrices."""

    def __init__(self, tensors: Mapping[str, Array], hidden: int = 0) -> None:
        """`hidden`: numbers of the model's vectors; 0 = as the tensors say. Raises DeltaError for tensors that don't fit together."""
        self.mean = _row(tensors, "reduce.mean", PARTS * FEATURES)
        self.reduce = unpack_rows("reduce", tensors)
        k = len(self.reduce)
        self.names_weight, self.tags_weight = unpack_rows("names", tensors), unpack_rows("tags", tensors)
        self.names_bias = _row(tensors, "names.bias", len(self.names_weight))
        self.tags_bias = _row(tensors, "tags.bias", len(self.tags_weight))
        self.names = unpack_lines("names.lines", tensors, len(self.names_weight))
        self.tags = unpack_lines("tags.lines", tensors, len(self.tags_weight))
        self.inner, self.outer = unpack_rows("inner", tensors), unpack_rows("outer", tensors)
        self.inner_bias = _row(tensors, "inner.bias", len(self.inner))
        places = _row(tensors, "outer.places", 1)
        self.places = int(places[0])
        shapes = (self.reduce.shape[1], self.names_weight.shape[1], self.tags_weight.shape[1], self.inner.shape[1], self.outer.shape[1])
        if shapes != (PARTS * FEATURES, k, k, k, len(self.inner) + k + 1) or self.places < 1 or len(self.outer) % self.places:
            raise DeltaError("sight", "must hold matrices that fit together", shapes, "The delta is incomplete; make it again.")
        self.hidden = len(self.outer) // self.places
        if hidden not in (0, self.hidden):
            raise DeltaError("sight", f"must make vectors of {hidden} numbers for this model", self.hidden, "It was made for another one.")

    def reduced(self, numbers: Floats) -> Floats:
        """Return z of the eye's numbers: [..., 5 · 1280] → [..., k]."""
        z = (numbers - self.mean) @ self.reduce.T
        return of_length(z)

    def vectors(self, z: Floats) -> Floats:
        """Return the vectors for one picture: [k] → [n, hidden]."""
        h = gelu(self.inner @ z + self.inner_bias)
        return (self.outer @ np.concatenate([h, z, np.ones(1, np.float32)])).reshape(self.places, self.hidden).astype(np.float32)

    def words(self, z: Floats) -> tuple[list[str], list[str]]:
        """Return the best names, the best first, and the best other words."""
        names = [self.names[i] for i in best(self.names_weight @ z + self.names_bias, NAMES)]
        said = {word for name in names for word in name.split()}
        tags = [self.tags[i] for i in best(self.tags_weight @ z + self.tags_bias, TAGS + len(said))]
        return names, [tag for tag in tags if tag not in said][:TAGS]


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


def line_of(names: list[str], tags: list[str]) -> str:
    """Return the words that stand behind a picture's vectors."""
    tagged = f"; {', '.join(tags)}" if tags else ""
    return f" (looks like: {', '.join(names)}{tagged})\n"


class ProjectedSight:
    """See `core.media.Sight`. The eye is opened with the first picture; threads may share it."""

    marker = ""

    def __init__(self, home: Home, delta: Delta, tensors: Mapping[str, Array]) -> None:
        """Raises DeltaError for tensors that don't fit together."""
        self._heads, self._entry, self._lock = Heads(tensors), EYES[EYE], Lock()
        self._path = home.base_folder(self._entry.digest) / self._entry.file.name
        self.digest = digest_json([delta.digest, self._entry.digest])

    def see(self, picture: Picture) -> tuple[SightPiece, ...]:
        """See `core.media.Sight.see`."""
        z = self._heads.reduced(look(self.eye, picture))
        return self._heads.vectors(z), line_of(*self._heads.words(z))

    @cached_property
    def eye(self) -> Eye:
        """The eye. Raises NotKept where its weights aren't in this home."""
        return open_eye(self._path)


def open_eye(path: Any) -> Eye:
    """Open an eye's weights. Raises NotKept with the command that brings them."""
    if not path.exists():
        raise NotKept("the eye", "is not in this home", path.name, "Run: ingle pull sight")
    return Eye(path)


def look(eye: Eye, picture: Picture) -> Floats:
    """Return the eye's numbers of a picture: float32 [5 · 1280]."""
    return pooled(eye.look(square(picture, SIDE)))


def _row(tensors: Mapping[str, Array], name: str, count: int) -> Floats:
    values = tensors.get(name)
    if values is None or values.shape != (count,):
        raise DeltaError(f"tensor {name}", f"must hold {count} numbers", "" if values is None else values.shape, "Make the delta again.")
    return values.astype(np.float32)
