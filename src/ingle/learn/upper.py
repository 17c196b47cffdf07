"""The upper layers of a model and the losses on its vocabulary, forward and back: what a lesson is trained through.

In float32 NumPy and our own kernels. Shapes: T tokens in a row, A of them wanted, D head_dim, h hidden, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.learn.mixing import mix
from ingle.learn.pieces import Angles, Array, Back, FrozenMatrix, LayerWeights, Linear, Norm, gated, kept_matrix
from ingle.model.hf_config import all_frequencies
from ingle.model.tensor import expected_shapes
from ingle.train.shared_rows import DocumentRow

# The part of a layer behind its mixer, forward and back: the gated MLP, or a mixture of experts.


def inner(own: LayerWeights, x: Array) -> tuple[Array, Back]:
    """Apply it: [T, hidden] → same shape."""
    experts = own.config.experts_at(own.index)
    return _mlp(own, "mlp", x) if experts is None else _mixture(own, x)


def _mlp(own: LayerWeights, name: str, x: Array) -> tuple[Array, Back]:
    gate, back_gate = own.linears[f"{name}.gate_proj"](x)
    up, back_up = own.linears[f"{name}.up_proj"](x)
    product, back_product = gated(own.config.ways.activation, gate, up)
    y, back_down = own.linears[f"{name}.down_proj"](product)

    def back(g: Array) -> Array:
        to_gate, to_up = back_product(back_down(g))
        return back_gate(to_gate) + back_up(to_up)

    return y, back


def _mixture(own: LayerWeights, x: Array) -> tuple[Array, Back]:
    """Give each token to the experts with the largest shares (arXiv 1701.06538)."""
    experts, router = own.config.experts, own.weights["mlp.gate.weight"]
    assert experts is not None, "it is asked"
    logits = x @ router.T
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    numbers = np.argsort(-chances, -1, kind="stable")[:, : experts.chosen]
    chosen = np.zeros(chances.shape, np.bool_)
    np.put_along_axis(chosen, numbers, True, -1)
    whole = (chances * chosen).sum(-1, keepdims=True) if experts.normed else np.float32(1)
    shares, y, parts = chances * chosen / whole, np.zeros_like(x), list[tuple[int, np.ndarray, Array, Back]]()
    for number in range(experts.count):
        asking = np.flatnonzero(chosen[:, number])
        if len(asking):
            said, back_said = _mlp(own, f"mlp.experts.{number}", x[asking])
            y[asking] += said * shares[asking, number, None]
            parts.append((number, asking, said, back_said))

    def back(g: Array) -> Array:
        to_shares, to_x = np.zeros_like(shares), np.zeros_like(x)
        for number, asking, said, back_said in parts:
            to_shares[asking, number] = (g[asking] * said).sum(-1)
            to_x[asking] += back_said(g[asking] * shares[asking, number, None])
        if experts.normed:
            to_shares = (to_shares - (to_shares * shares).sum(-1, keepdims=True)) * chosen
        to_chances = to_shares / whole
        to_x += (chances * (to_chances - (to_chances * chances).sum(-1, keepdims=True))) @ router
        return to_x

    return y, back


_LAYERS = "model.layers."


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A mixer of tokens and an MLP, each between the norms of its family, added to the stream."""

    own: LayerWeights

    def __call__(self, x: Array, row: DocumentRow, angles: Angles, last: bool) -> tuple[Array, Back]:
        """Apply it: [T, hidden] → same shape; of the last layer the wanted tokens alone, [A, hidden]."""
        before, after = self.own.config.ways.norm_names
        attended, back_mixer = self._between(before[0], after[0], x, lambda y: mix(self.own, y, row, angles, last))
        kept = x[row.wanted] if last else x
        middle = kept + attended
        added, back_inner = self._between(before[1], after[1], middle, lambda y: inner(self.own, y))

        def back(g: Array) -> Array:
            g = g + back_inner(g)
            to_x = back_mixer(g)
            if last:
                to_x[row.wanted] += g
                return to_x
            return to_x + g

        return middle + added, back

    def _between(self, before: str, after: str, x: Array, inside: Callable[[Array], tuple[Array, Back]]) -> tuple[Array, Back]:
        """Apply something between two norms ("" = none), scaled as this family adds it to the stream."""
        norms, scale, backs = self.own.norms, np.float32(self.own.config.ways.residual_scale), list[Back]()
        for step in (norms[before] if before else None, inside, norms[after] if after else None):
            if step is not None:
                x, back = step(x)
                backs.append(back)

        def back_all(g: Array) -> Array:
            g = g if scale == 1 else g * scale
            for back in reversed(backs):
                g = back(g)
            return g

        return (x if scale == 1 else x * scale), back_all


@dataclass(frozen=True, eq=False)
class UpperLayers:
    """Layers of a model, one above the other, and the norm above the last; they end where the logits begin."""

    config: ModelConfig
    layers: tuple[Layer, ...]
    norm: Norm

    @classmethod
    def read(
        cls, config: ModelConfig, tensor: Callable[[str], Array], first: int, stop: int | None = None, bf16: bool = False
    ) -> "UpperLayers":
        """Read layers from number `first` on, up to `stop`. `tensor` gives a weight by Hugging Face's name, in float32; `bf16`: whether
        linears are kept in bfloat16."""
        found = {number: LayerWeights(config, number, {}, {}, {}) for number in range(first, len(config.layers) if stop is None else stop)}
        names = [name for name in expected_shapes(config) if name.startswith(_LAYERS)]
        for number, rest in ((int(number), rest) for number, _, rest in (name[len(_LAYERS) :].partition(".") for name in names)):
            if number not in found:
                continue
            values = np.ascontiguousarray(tensor(f"{_LAYERS}{number}.{rest}"), np.float32)
            own, (owner, _, part) = found[number], rest.rpartition(".")
            if owner.endswith("norm"):
                own.norms[owner] = Norm(values, config.norm_eps)
            elif "_proj" not in owner:
                own.weights[rest] = values
            elif part == "weight":
                own.linears[owner] = Linear(kept_matrix(values, bf16))
            else:
                own.linears[owner].bias = values
        layers = tuple(map(Layer, found.values()))
        return cls(config, layers, Norm(np.asarray(tensor("model.norm.weight"), np.float32), config.norm_eps, config.ways.logit_scale))

    @cached_property
    def _turns(self) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        return all_frequencies(self.config)

    def angles(self, row: DocumentRow) -> list[Angles]:
        """Return cos and sin [T, D / 2] of each kind of RoPE."""
        places = row.positions.astype(np.float32)[:, None]
        return [(np.cos(places * f) * s, np.sin(places * f) * s) for f, s in self._turns]

    def __call__(self, x: Array, row: DocumentRow) -> tuple[Array, Back]:
        """Return the states after the final norm at the wanted tokens, [A, hidden], from the input of the first of these layers."""
        angles, backs = self.angles(row), list[Back]()
        for layer in self.layers:
            x, back = layer(x, row, angles[self.config.rope_of(layer.own.index)], layer is self.layers[-1])
            backs.append(back)
        y, back_norm = self.norm(x if self.layers else x[row.wanted])

        def back_all(g: Array) -> Array:
            g = back_norm(g)
            for back in reversed(backs):
                g = back(g)
            return g

        return y, back_all


# Losses on the vocabulary, in chunks of rows: the logits of all rows are never whole in memory.


CHUNK = 64  # rows: 64 × 49,152 float32 are 13 MB
Integers = npt.NDArray[np.int64]


def cross_entropy(states: Array, head: FrozenMatrix, targets: Integers) -> tuple[Array, Array]:
    """Return log p(target) of each row in nats, [A], and the gradient of their negative sum at the states, [A, h]."""

    def loss(rows: slice, logits: Array) -> tuple[Array, Array]:
        chosen, place = targets[rows], np.arange(len(logits))
        logs = log_softmax(logits)
        words = logs[place, chosen].copy()
        slope = np.exp(logs, out=logs)
        slope[place, chosen] -= 1
        return words, slope

    return _in_chunks(states, head, loss)


def divergence(states: Array, head: FrozenMatrix, before: Array) -> tuple[Array, Array]:
    """Return KL(before ‖ now) of each row in nats, [A], and the gradient of their sum at the states. `before`: the states that give the
    other distribution by the same head, [A, h]."""

    def loss(rows: slice, logits: Array) -> tuple[Array, Array]:
        moved, theirs = np.empty(len(logits), np.float32), log_softmax(head.times(before[rows]))
        for number, (mine, other) in enumerate(zip(log_softmax(logits), theirs, strict=True)):
            chances = np.exp(other)
            moved[number] = (chances * (other - mine)).sum()
            np.exp(mine, out=mine)
            mine -= chances
        return moved, logits

    return _in_chunks(states, head, loss)


def log_softmax(logits: Array) -> Array:
    """Turn logits [A, V] into log-probabilities, in place; row by row, so that what is in between is small."""
    for row in logits:
        row -= row.max()
        row -= np.log(np.exp(row).sum())
    return logits


def _in_chunks(states: Array, head: FrozenMatrix, loss: Callable[[slice, Array], tuple[Array, Array]]) -> tuple[Array, Array]:
    values, slopes = np.empty(len(states), np.float32), np.empty_like(states)
    for start in range(0, len(states), CHUNK):
        rows = slice(start, start + CHUNK)
        values[rows], slope = loss(rows, head.times(states[rows]))
        slopes[rows] = head.back(slope)
    return values, slopes
