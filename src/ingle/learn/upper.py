"""The upper layers of a model, forward and back, in float32 NumPy and our own kernels: what a lesson is trained through.

Shapes: T tokens in a row, A of them wanted, D head_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ingle.core.spec import ModelConfig
from ingle.learn.inner import inner
from ingle.learn.matrix import kept_matrix
from ingle.learn.mixing import mix
from ingle.learn.pieces import Angles, Array, Back, LayerWeights, Linear, Norm
from ingle.model.hf_config import all_frequencies
from ingle.model.tensor import expected_shapes
from ingle.train.shared_rows import DocumentRow

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
