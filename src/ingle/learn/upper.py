"""The upper layers of a model, forward and back, in float32 NumPy and our own kernels: what a lesson is trained through.

Shapes: T tokens in a row, A of them wanted, G groups, R query heads a group, D head_dim.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.learn.attending import attend
from ingle.learn.matrix import kept_matrix
from ingle.learn.pieces import Array, Back, Linear, Norm, gated, sigmoid, turned
from ingle.learn.rows import DocumentRow
from ingle.model.expected import expected_shapes
from ingle.model.rope import all_frequencies

Angles = tuple[Array, Array]
_LAYERS = "model.layers."


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer's linears and norms by their names in Hugging Face's layer, "self_attn.q_proj" say."""

    config: ModelConfig
    index: int
    linears: Mapping[str, Linear]
    norms: Mapping[str, Norm]

    def __call__(self, x: Array, row: DocumentRow, angles: Angles, last: bool) -> tuple[Array, Back]:
        """Apply it: [T, hidden] → same shape; of the last layer the wanted tokens alone, [A, hidden]."""
        before, after = self.config.ways.norm_names
        attended, back_attention = self._between(before[0], after[0], x, lambda y: self._attention(y, row, angles, last))
        kept = x[row.wanted] if last else x
        middle = kept + attended
        added, back_mlp = self._between(before[1], after[1], middle, self._mlp)

        def back(g: Array) -> Array:
            g = g + back_mlp(g)
            to_x = back_attention(g)
            if last:
                to_x[row.wanted] += g
                return to_x
            return to_x + g

        return middle + added, back

    def _between(self, before: str, after: str, x: Array, inner: Callable[[Array], tuple[Array, Back]]) -> tuple[Array, Back]:
        """Apply something between two norms ("" = none), scaled as this family adds it to the stream."""
        scale, backs = np.float32(self.config.ways.residual_scale), list[Back]()
        for step in (self.norms[before] if before else None, inner, self.norms[after] if after else None):
            if step is not None:
                x, back = step(x)
                backs.append(back)

        def back_all(g: Array) -> Array:
            g = g if scale == 1 else g * scale
            for back in reversed(backs):
                g = back(g)
            return g

        return (x if scale == 1 else x * scale), back_all

    def _mlp(self, x: Array) -> tuple[Array, Back]:
        gate, back_gate = self.linears["mlp.gate_proj"](x)
        up, back_up = self.linears["mlp.up_proj"](x)
        product, back_product = gated(self.config.ways.activation, gate, up)
        y, back_down = self.linears["mlp.down_proj"](product)

        def back(g: Array) -> Array:
            to_gate, to_up = back_product(back_down(g))
            return back_gate(to_gate) + back_up(to_up)

        return y, back

    def _attention(self, x: Array, row: DocumentRow, angles: Angles, last: bool) -> tuple[Array, Back]:
        config, ways = self.config, self.config.ways
        groups, dim, asking = config.num_kv_heads, config.head_dim, (x[row.wanted] if last else x)
        (q, back_q), (k, back_k), (v, back_v) = (
            self.linears[f"self_attn.{name}_proj"](of) for name, of in (("q", asking), ("k", x), ("v", x))
        )
        gate = None
        if ways.gated:
            q, gate = (np.ascontiguousarray(part) for part in np.split(q.reshape(len(q), -1, 2 * dim), 2, -1))
            gate = gate.reshape(len(gate), -1)
        (q, back_qn), (k, back_kn) = self._normed("q_norm", q), self._normed("k_norm", k)
        factor = np.float32(ways.attention_scale * dim**0.5) if ways.attention_scale else np.float32(1)
        cos, sin = angles
        turned_q, turn_q = turned(q * factor, *((cos[row.wanted], sin[row.wanted]) if last else angles))
        turned_k, turn_k = turned(k, cos, sin)
        seen, back_seen = self._seen(turned_q.reshape(len(q), groups, -1, dim), turned_k, v.reshape(len(x), groups, dim), row, last)
        flat = seen.reshape(len(q), -1)
        open_ = None if gate is None else sigmoid(gate)
        y, back_out = self.linears["self_attn.o_proj"](flat if open_ is None else flat * open_)

        def back(g: Array) -> Array:
            to_flat = back_out(g)
            to_gate = None
            if open_ is not None:
                to_gate, to_flat = to_flat * flat * open_ * (1 - open_), to_flat * open_
            to_q, to_k, to_v = back_seen(to_flat.reshape(seen.shape))
            to_q = back_qn(turn_q(to_q.reshape(q.shape)) * factor)
            if to_gate is not None:
                to_q = np.concatenate([to_q.reshape(*q.shape), to_gate.reshape(q.shape)], -1)
            to_x = back_k(back_kn(turn_k(to_k)).reshape(len(x), -1)) + back_v(to_v.reshape(len(x), -1))
            to_asking = back_q(to_q.reshape(len(q), -1))
            if last:
                to_x[row.wanted] += to_asking
                return to_x
            return to_x + to_asking

        return y, back

    def _normed(self, name: str, x: Array) -> tuple[Array, Back]:
        """Normalise heads, or all of them together, where this family does: → [T, heads, D]."""
        dim = self.config.head_dim
        norm = self.norms.get(f"self_attn.{name}")
        if norm is None:
            return x.reshape(len(x), -1, dim), lambda g: g
        whole = self.config.ways.whole_norm
        y, back = norm(x.reshape(len(x), -1) if whole else x.reshape(len(x), -1, dim))
        return y.reshape(len(x), -1, dim), lambda g: back(g.reshape(len(g), -1) if whole else g)

    def _seen(
        self, q: Array, k: Array, v: Array, row: DocumentRow, last: bool
    ) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:  # fmt: skip
        """Attend with each kind of groups: q [N, G, R, D], k and v [T, G, D] → [N, G, R, D]."""
        spec, groups = self.config.layers[self.index], self.config.num_kv_heads
        kinds: list[tuple[LayerSpec | None, list[int]]] = [(None, list(spec.retrieval)), (spec, list(spec.streaming(groups)))]
        out, backs = np.zeros_like(q), []
        for kind, chosen in kinds:
            if chosen and (kind is None or kind.window):
                part, back = attend(q[:, chosen], k[:, chosen], v[:, chosen], row.plan(kind, last))
                out[:, chosen] = part
                backs.append((chosen, back))

        def back_all(g: Array) -> tuple[Array, Array, Array]:
            to = tuple(np.zeros_like(x) for x in (q, k, v))
            for chosen, back in backs:
                for whole, part in zip(to, back(g[:, chosen]), strict=True):
                    whole[:, chosen] = part
            return to[0], to[1], to[2]

        return out, back_all


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
        linears, norms = (dict[int, dict[str, Any]]() for _ in range(2))
        names = [name for name in expected_shapes(config) if name.startswith(_LAYERS)]
        for number, rest in ((int(number), rest) for number, _, rest in (name[len(_LAYERS) :].partition(".") for name in names)):
            owner, _, part = rest.rpartition(".")
            if first <= number < (len(config.layers) if stop is None else stop):
                values = np.ascontiguousarray(tensor(f"{_LAYERS}{number}.{rest}"), np.float32)
                if owner.endswith("norm"):
                    norms.setdefault(number, {})[owner] = Norm(values, config.norm_eps)
                elif part == "weight":
                    linears.setdefault(number, {})[owner] = Linear(kept_matrix(values, bf16))
                else:
                    linears[number][owner].bias = values
        layers = tuple(Layer(config, number, linears[number], norms.get(number, {})) for number in sorted(linears))
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
            x, back = layer(x, row, angles[self.config.rope_of(layer.index)], layer is self.layers[-1])
            backs.append(back)
        y, back_norm = self.norm(x if self.layers else x[row.wanted])

        def back_all(g: Array) -> Array:
            g = back_norm(g)
            for back in reversed(backs):
                g = back(g)
            return g

        return y, back_all
