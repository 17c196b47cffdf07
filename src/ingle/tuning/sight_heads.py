"""The heads of a sight, in closed form: which directions of the eye's numbers tell names apart, and where each name lies in them.

The numbers are first taken to the 1,024 directions in which they differ most (randomised PCA, arXiv 0909.4061). A ridge regression from
there to names gives the directions; the first k principal ones of what it predicts are kept (reduced-rank regression). In these k
numbers, brought to one length, a name lies at the mean of its pictures; its score is the cosine.

Shapes: n pictures with v views each, f numbers of a view, N names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.media.sight import of_length, said
from ingle.tuning.sight_pictures import ShownPicture

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
MOST_DIRECTIONS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Closed-form heads."""

    mean: Floats
    """[f]."""
    reduce: Floats
    """[k, f]."""
    names: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    """Words of each name."""
    places: Floats
    """[N, k]: where each name lies; of length 1."""
    likeness: float = 1.0
    """The cosine that parts pictures of one name, by different groups, from those of the nearest other name with the fewest errors."""

    def reduced(self, numbers: Array) -> Floats:
        """Return the k numbers: [..., f] → [..., k]."""
        return of_length(((numbers.astype(np.float32) - self.mean) @ self.reduce.T).astype(np.float32))

    def said(self, z: Floats) -> tuple[list[str], list[str]]:
        """Return names and words for the k numbers of one view."""
        return said(self.places @ z / len(z) ** 0.5, self.names, self.tags)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums over some pictures for a ridge regression; those of several sets add up."""

    gram: Floats
    """[d, d], d = MOST_DIRECTIONS or fewer."""
    by_name: Floats
    """[d, N]: sums of the views of each name."""


def names_of(pictures: Sequence[ShownPicture]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], Array]:
    """Return all names, the words of each, and which name each picture has."""
    names = tuple(dict.fromkeys(one.name for one in pictures))
    number = {name: i for i, name in enumerate(names)}
    tags: list[dict[str, None]] = [{} for _ in names]
    for one in pictures:
        tags[number[one.name]] |= dict.fromkeys(one.tags)
    return names, tuple(map(tuple, tags)), np.array([number[one.name] for one in pictures], np.int64)


def centred(numbers: Array, mean: Floats) -> Floats:
    """Return views around their mean, each of length 1: [..., f] → [n, f]."""
    x = numbers.reshape(-1, numbers.shape[-1]).astype(np.float32) - mean
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return x


def basis(x: Floats, seed: int) -> Floats:
    """Return the directions in which these views differ most: [n, f] → [f, d], orthonormal."""
    most = min(MOST_DIRECTIONS, *x.shape)
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], most), np.float32)
    for _ in range(2):
        drawn = np.linalg.qr(x.T @ (x @ drawn))[0]
    return drawn


def sums_of(x: Floats, labels: Array, count: int) -> Sums:
    """Return the sums of these views: x [n, d], labels int [n]."""
    by_name = np.zeros((count, x.shape[1]), np.float32)
    np.add.at(by_name, labels, x)
    return Sums(x.T @ x, by_name.T)


def directions(sums: Sums, width: int, ridge: float) -> Floats:
    """Return the k directions: [k, d], k = width or fewer."""
    gram, target = sums.gram, sums.by_name - sums.by_name.mean(axis=1, keepdims=True)
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram), dtype=np.float32), target)  # (d, N)
    _, vectors = np.linalg.eigh(weights.T @ gram @ weights)
    kept: Floats = np.ascontiguousarray((weights @ vectors[:, ::-1][:, :width]).T)
    kept /= np.maximum(np.linalg.norm(kept, axis=1).max(), 1e-9)
    return kept


Words = tuple[list[str], list[str]]
"""Names that a picture looks like, and words that go with it."""


def fit(
    numbers: Array, pictures: Sequence[ShownPicture], width: int, ridge: float, check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> tuple[Fitted, list[list[Words]]]:  # fmt: skip
    """Fit the heads on all pictures; return them, and the words for each picture's views by heads that were fitted without its group:
    whoever learns from these words learns how far they can be trusted.

    numbers: float16 [n, v, f]. `check` raises when somebody wants to stop.
    """
    names, tags, labels = names_of(pictures)
    mean = numbers.reshape(-1, numbers.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
    x = centred(numbers, mean)
    wide = basis(x, 0)
    x = (x @ wide).reshape(*numbers.shape[:2], -1)  # (n, v, d)
    groups = sorted({one.group for one in pictures})
    of_group = np.array([groups.index(one.group) for one in pictures])
    parts = list[Sums]()
    for group in range(len(groups)):
        check()
        mine = of_group == group
        parts.append(sums_of(x[mine].reshape(-1, x.shape[-1]), np.repeat(labels[mine], numbers.shape[1]), len(names)))
    gram: Floats = np.sum([part.gram for part in parts], axis=0)
    by_name: Floats = np.sum([part.by_name for part in parts], axis=0)
    words: list[list[Words]] = [[] for _ in pictures]
    same, other = list[float](), list[float]()
    for group, part in enumerate(parts if len(parts) > 1 else []):
        check()
        progress(group, len(groups) + 1)
        others = of_group != group
        fold = _fitted(Sums(gram - part.gram, by_name - part.by_name), x[others], labels[others], (names, tags), width, ridge)
        for i in np.flatnonzero(~others):
            z = fold.reduced(x[i])
            words[i] = [fold.said(view) for view in z]
            cosines = fold.places @ z[0] / z.shape[1] ** 0.5
            if fold.places[labels[i]].any():
                same.append(float(cosines[labels[i]]))
                other.append(float(np.delete(cosines, labels[i]).max(initial=-1)))
    check()
    whole = _fitted(Sums(gram, by_name), x, labels, (names, tags), width, ridge)
    progress(len(groups) + 1, len(groups) + 1)
    whole = replace(whole, mean=mean, reduce=np.ascontiguousarray(whole.reduce @ wide.T))
    return replace(whole, likeness=parting(np.array(same), np.array(other))), words


def parting(same: Array, other: Array) -> float:
    """Return the threshold with the fewest of `same` below it and of `other` not below it; 0.9 where nothing is known."""
    if not len(same):
        return 0.9
    places = np.unique(np.concatenate([same, other]))
    errors = np.searchsorted(np.sort(same), places) + len(other) - np.searchsorted(np.sort(other), places)
    return float(places[int(np.argmin(errors))])


def _fitted(
    sums: Sums, x: Floats, labels: Array, words: tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], width: int, ridge: float
) -> Fitted:  # fmt: skip
    """Fit heads that read views in the basis: x [n, v, d]."""
    reduce = directions(sums, width, ridge)
    bare = Fitted(np.zeros(x.shape[-1], np.float32), reduce, *words, np.zeros((0, len(reduce)), np.float32))
    places = np.zeros((len(words[0]), len(reduce)), np.float32)
    np.add.at(places, labels, bare.reduced(x).mean(axis=1))
    return replace(bare, places=places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-6))
