"""From the homes' low-rank updates to one: exactly, without ever seeing a dense matrix.

Home i adds B_i A_i to a linear's weights (scale within B). What all homes together should add is mean(B_i A_i), and mean(B_i) · mean(A_i)
is something else. It is exact where all have the same A (or the same B): then mean(B_i) A = mean(B_i A), and of the homes a sum is enough.

| method | in a round | needs |
|---|---|---|
| alternate | B is trained in odd rounds, A in even ones (RoLoRA, arXiv 2502.01755) | sums |
| frozen | B is trained, A never (FFA-LoRA, arXiv 2403.12313) | sums |
| stack | both are trained; all pairs side by side, cut back to the rank (FLoRA, arXiv 2409.05976) | every home's own update, in the open |

An update is what the factor gained in a round. Tensors are named as in a delta of the kind `lora`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, ShapeError

Tensors = Mapping[str, npt.NDArray[np.float32]]
A, B = ".lora_A.weight", ".lora_B.weight"  # ends of the names of a linear's factors: A is [r, K], B [N, r]


@dataclass(frozen=True, slots=True)
class Aggregation:
    trains: tuple[tuple[str, ...], ...]  # the factors that are trained and sent, by round: the first entry in the first, then in turn
    open: bool = False  # true if the coordinator must see every home's own update


AGGREGATIONS: Mapping[str, Aggregation] = {
    "alternate": Aggregation(((B,), (A,))),
    "frozen": Aggregation(((B,),)),
    "stack": Aggregation(((A, B),), open=True),
}


def aggregation(name: str) -> Aggregation:
    """Return the aggregation of that name. Raises ConfigError with the known ones."""
    if name not in AGGREGATIONS:
        raise ConfigError("aggregation", f"must be one of {', '.join(AGGREGATIONS)}", name)
    return AGGREGATIONS[name]


def trained_names(tensors: Tensors, name: str, number: int) -> tuple[str, ...]:
    """Return the tensors that are trained and sent in round `number` (from 1), in the order in which they are sent."""
    trains = aggregation(name).trains
    return tuple(sorted(tensor for tensor in tensors if tensor.endswith(trains[(number - 1) % len(trains)])))


def first_factors(shapes: Mapping[str, tuple[int, int]], rank: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return the factors that all homes start from, of linears [N, K] by name: A uniform within ±1/√K as LoRA has it, B zero.

    The same seed gives the same bits everywhere, so A need not be sent.
    """
    raw = np.random.Philox(seed)
    factors: dict[str, npt.NDArray[np.float32]] = {}
    for linear, (outputs, inputs) in sorted(shapes.items()):
        if not 1 <= rank <= min(outputs, inputs):
            raise ConfigError("rank", f"must be from 1 to {min(outputs, inputs)}, the smaller side of {linear}", rank)
        # Raw bits, since NumPy promises those for every version, and its distributions for none.
        drawn = (raw.random_raw(rank * inputs) >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
        factors[linear + A] = (drawn / np.sqrt(inputs)).astype(np.float32).reshape(rank, inputs)
        factors[linear + B] = np.zeros((outputs, rank), np.float32)
    return factors


def flat_gain(before: Tensors, after: Tensors, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return what these tensors gained, as one row. Raises ShapeError if one is missing or has another shape."""
    gains = []
    for name in names:
        if name not in after or after[name].shape != before[name].shape:
            got = after[name].shape if name in after else "no such tensor"
            raise ShapeError(name, f"must have the shape {before[name].shape}", got, "The worker trained another model or rank.")
        gains.append((after[name].astype(np.float64) - before[name]).reshape(-1))
    return np.concatenate(gains) if gains else np.zeros(0)


def added_gain(before: Tensors, gain: npt.ArrayLike, names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors with a row of gains added to these of them. Raises ShapeError if its length is another."""
    row = np.asarray(gain, np.float64)
    sizes = [before[name].size for name in names]
    if row.shape != (sum(sizes),):
        raise ShapeError("update", f"must have {sum(sizes)} numbers", row.size, "It was made for another model or round.")
    parts = np.split(row, np.cumsum(sizes)[:-1])
    new = {name: (before[name] + part.reshape(before[name].shape)).astype(np.float32) for name, part in zip(names, parts, strict=True)}
    return {**before, **new}


def stacked(homes: Sequence[Tensors], rank: int) -> tuple[dict[str, npt.NDArray[np.float32]], float]:
    """Return the pair of rank `rank` that is nearest to the mean of the homes' products, and how much of it was lost.

    The loss is the share of the Frobenius norm over all linears: 0 = exact, which it is up to a rank of homes × rank.
    """
    factors: dict[str, npt.NDArray[np.float32]] = {}
    whole, lost = 0.0, 0.0
    for name in homes[0]:
        if not name.endswith(A):
            continue
        linear = name.removesuffix(A)
        side = np.concatenate([home[linear + B].astype(np.float64) / len(homes) for home in homes], axis=1)  # [N, n·r]
        down = np.concatenate([home[linear + A].astype(np.float64) for home in homes], axis=0)  # [n·r, K]
        # B A = Q_b (R_b R_aᵀ) Q_aᵀ: the middle is small, and its singular values are those of the product.
        left, upper = np.linalg.qr(side)
        right, lower = np.linalg.qr(down.T)
        u, sizes, v = np.linalg.svd(upper @ lower.T)
        kept = min(rank, sizes.size)
        root = np.sqrt(sizes[:kept])
        factors[linear + A] = _wide(((v[:kept].T * root).T @ right.T), rank)
        factors[linear + B] = _wide(((left @ u[:, :kept]) * root).T, rank).T.copy()
        whole, lost = whole + float(np.square(sizes).sum()), lost + float(np.square(sizes[kept:]).sum())
    return factors, (lost / whole) ** 0.5 if whole else 0.0


def _wide(rows: npt.NDArray[np.float64], rank: int) -> npt.NDArray[np.float32]:
    """Return rows [k, n] as [rank, n], with zeros where there were fewer."""
    return np.pad(rows, ((0, rank - len(rows)), (0, 0))).astype(np.float32)
