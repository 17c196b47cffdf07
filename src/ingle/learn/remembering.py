"""Recurrent memories of streaming groups (model/module_parts.py), read by packed documents, with gradients, in float32 NumPy.

Shapes: T tokens in a row, G groups that remember, R query heads a group, D head_dim.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from ingle.core.spec import LayerSpec
from ingle.learn.delta_rule import delta_rule
from ingle.learn.pieces import Array, sigmoid, softplus, unit

To = tuple[Array, Array, Array, Array]


def remember(
    weights: Mapping[str, Array], spec: LayerSpec, bounds: tuple[int, ...], window: Array, q: Array, k: Array, v: Array
) -> tuple[Array, Callable[[Array], To]]:  # fmt: skip
    """Blend what the window gave with the memories: window and q [T, G, R, D], k and v [T, G, D], before RoPE → [T, G, R, D], and what
    gives the gradients of all four. `weights`: a memory's, by their names in it."""
    out, backs = window.copy(), list[Callable[[Array, To], None]]()
    for begin, end in pairwise(bounds):
        entering = slice(begin + spec.sinks, end - spec.window)
        if entering.start < entering.stop:
            reading = slice(entering.start + spec.window, end)
            for group in range(q.shape[1]):
                at, since = (reading, group), (entering, group)
                out[at], back = _blend(_of_group(weights, group, q.shape), spec.window, window[at], q[at], k[since], v[since])
                backs.append(_placed(at, since, back))

    def back_all(g: Array) -> To:
        to = g.copy(), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for back in backs:
            back(g, to)
        return to

    return out, back_all


def _placed(at: tuple[slice, int], since: tuple[slice, int], back: Callable[[Array], To]) -> Callable[[Array, To], None]:
    """Return what puts the gradients of one document and group where they belong."""

    def place(g: Array, to: To) -> None:
        to_window, to_q, to_k, to_v = back(g[at])
        to[0][at] = to_window
        to[1][at] += to_q
        to[2][since] += to_k
        to[3][since] += to_v

    return place


def _of_group(weights: Mapping[str, Array], group: int, shape: tuple[int, ...]) -> dict[str, Array]:
    _, groups, repeats, dim = shape
    rows = {"q_map.weight": dim, "k_map.weight": dim, "gate.weight": repeats, "gate.bias": repeats, "age": repeats}
    assert len(weights["decay.bias"]) == groups
    return {name: one[group * rows.get(name, 1) :][: rows.get(name, 1)] for name, one in weights.items()}


def _blend(w: dict[str, Array], width: int, window: Array, q: Array, k: Array, v: Array) -> tuple[Array, Callable[[Array], To]]:
    """Of one document and group: window and q [n, R, D] of readers, k and v [n, D] of those that enter."""
    dim, both = k.shape[-1], np.concatenate([k, v], -1)
    fading, writing = ((both @ w[f"{name}.weight"][0] + w[f"{name}.bias"][0]) for name in ("decay", "write"))
    write = sigmoid(writing)
    queries, back_q = unit(q @ w["q_map.weight"].T)
    keys, back_k = unit(k @ w["k_map.weight"].T)
    y, back_y = delta_rule(queries, keys, v, -softplus(-fading), write)
    share = _share(w, width, q)

    def back(g: Array) -> To:
        to_share = (g * (y - window)).sum(-1, keepdims=True) * share * (1 - share)
        to_queries, to_keys, to_v, to_decay, to_write = back_y(g * share)
        to_q = back_q(to_queries) @ w["q_map.weight"] + to_share * w["gate.weight"]
        to_both = (to_decay * sigmoid(-fading))[:, None] * w["decay.weight"] + (to_write * write * (1 - write))[:, None] * w["write.weight"]
        return g * (1 - share), to_q, back_k(to_keys) @ w["k_map.weight"] + to_both[:, :dim], to_v + to_both[:, dim:]

    return window + share * (y - window), back


def _share(w: dict[str, Array], width: int, q: Array) -> Array:
    """λ of each query, [n, R, 1]."""
    count = np.arange(1, len(q) + 1, dtype=np.float32)[:, None]
    return sigmoid((q * w["gate.weight"]).sum(-1) + w["gate.bias"] + w["age"] * np.log(count / (count + np.float32(width))))[..., None]
