"""Naive references: the results of every kernel in plain NumPy. They are slow and obvious, and tests compare kernels with them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ingle.core.media import NO_VECTORS, Vectors
from ingle.core.spec import DeltaRule, Experts, LayerSpec, ModelConfig, ShortConvolution
from ingle.core.state import to_int8
from ingle.engine.adapter import Additions, check_additions
from ingle.kernels.naive import halves, linear, quantise, rounded

__all__ = ["halves", "linear", "quantise", "rounded"]

# Naive references of the parts that several kernels share, in plain NumPy.


Array = Any  # NumPy arrays; the shapes are in the docstrings


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Return x / sqrt(mean(x²) + eps) · weight over the last axis (arXiv 1910.07467)."""
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Return (x − mean) / sqrt(variance + eps) · weight + bias over the last axis (arXiv 1607.06450)."""
    x = x.astype(np.float64)
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def silu_product(gate: Array, up: Array) -> Array:
    """Return gate · sigmoid(gate) · up (SwiGLU, arXiv 2002.05202)."""
    return gate / (1 + np.exp(-gate)) * up


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^−x)."""
    return 1 / (1 + np.exp(-x))


def unit(x: Array) -> Array:
    """Return x [n] / sqrt(Σ x² + 1e-6)."""
    return x / np.sqrt((x**2).sum() + 1e-6)


# Naive references of what may stand in the place of attention or of the plain MLP (core/spec.py), in plain NumPy.


Project = Callable[[Array, str], Array]
"""Multiplies rows [T, K] by the linear of that name."""


def convolved(x: Array, taps: Array, bias: Array | float = 0.0) -> Array:
    """Return Σ over j of taps[c, 0, j] · x[t − length + 1 + j, c] + bias: x [T, C], taps [C, 1, length] → [T, C]. Before the first
    token lie zeros."""
    length = taps.shape[2]
    whole = np.concatenate([np.zeros((length - 1, x.shape[1])), x])
    return np.stack([(whole[t : t + length] * taps[:, 0].T).sum(axis=0) for t in range(len(x))]) + bias


def convolution(x: Array, own: ShortConvolution, project: Project, weights: Callable[[str], Array]) -> Array:
    """Return C · conv(B · x) before the output linear (arXiv 2511.23404): x [T, hidden] → same shape."""
    into, out, values = np.split(project(x, "in_proj"), 3, axis=1)
    return out * convolved(into * values, weights("conv.weight"), weights("conv.bias") if own.bias else 0.0)


def delta(x: Array, own: DeltaRule, eps: float, project: Project, weights: Callable[[str], Array]) -> Array:
    """Return the value heads' outputs before the output linear (arXiv 2412.06464 eq. 10): x [T, hidden] → [T, value heads · dim]."""
    T, dim, each = len(x), own.dim, own.value_heads // own.key_heads
    qkv = convolved(project(x, "in_proj_qkv"), weights("conv1d.weight"))
    q, k, v = np.split((qkv * sigmoid(qkv)).reshape(T, -1, dim), [own.key_heads, 2 * own.key_heads], axis=1)
    keep = np.exp(-np.exp(weights("A_log").astype(np.float64)) * np.logaddexp(0, project(x, "in_proj_a") + weights("dt_bias")))
    write, gate = sigmoid(project(x, "in_proj_b")), project(x, "in_proj_z").reshape(T, -1, dim)
    y = np.zeros((T, own.value_heads, dim))
    for head in range(own.value_heads):
        s, group = np.zeros((dim, dim)), head % own.key_heads if own.tiled else head // each
        for t in range(T):
            key, value = unit(k[t, group]), v[t, head]
            s = keep[t, head] * (s - write[t, head] * np.outer(s @ key, key)) + write[t, head] * np.outer(value, key)
            y[t, head] = s @ unit(q[t, group]) / np.sqrt(dim)
    return silu_product(gate, rms_norm(y, weights("norm.weight"), eps)).reshape(T, -1)


def mixture(x: Array, own: Experts, project: Project, product: Callable[[Array, Array], Array]) -> Array:
    """Return the sum of each row's experts times their shares (arXiv 1701.06538): x [T, hidden] → same shape."""
    scores, y = project(x, "gate"), np.zeros(x.shape)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = shares / shares.sum(axis=1, keepdims=True)
    for t in range(len(x)):
        chosen = np.argsort(-shares[t], kind="stable")[: own.chosen]
        factor = shares[t, chosen].sum() if own.normed else 1.0
        for expert in chosen:
            row, name = x[t : t + 1], f"experts.{expert}"
            inner = product(project(row, f"{name}.gate_proj"), project(row, f"{name}.up_proj"))
            y[t] += (project(inner, f"{name}.down_proj") * shares[t, expert] / factor)[0]
    return y


def addition(x: Array, a: Array, b: Array, bias: Array | None = None) -> Array:
    """Return B A x of x [T, K], or B relu(A x + bias): A [rank, K], B [N, rank] (arXiv 2106.09685, 1902.00751)."""
    inner = linear(x, a, bias)
    return linear(inner if bias is None else np.maximum(inner, 0), b)


def convolve(x: Array, weight: Array, bias: Array, step: int = 1, depthwise: bool = False) -> Array:
    """Return the convolution of a picture [height, width, channels in] → [⌈height / step⌉, ⌈width / step⌉, channels out].

    weight: [channels out, channels in, size, size], depthwise [channels, 1, size, size]. The border holds zeros; its larger half lies
    behind (TensorFlow's SAME).
    """
    size, after = weight.shape[-1], [-(-side // step) for side in x.shape[:2]]
    wide = [max((to - 1) * step + size - side, 0) for to, side in zip(after, x.shape, strict=False)]
    padded = np.pad(x.astype(np.float64), [(border // 2, border - border // 2) for border in wide] + [(0, 0)])
    y = np.zeros((*after, len(weight)))
    for row in range(after[0]):
        for column in range(after[1]):
            seen = padded[row * step : row * step + size, column * step : column * step + size]  # [size, size, channels in]
            y[row, column] = np.einsum("yxc,cyx->c" if depthwise else "yxc,ocyx->o", seen, weight[:, 0] if depthwise else weight) + bias
    return y


def relu6(x: Array) -> Array:
    """Return x, no less than 0 and no more than 6 (arXiv 1801.04381)."""
    return np.clip(x, 0, 6)


def gelu(x: Array) -> Array:
    """Return x · (1 + tanh(sqrt(2/π) · (x + 0.044715 x³))) / 2 (arXiv 1606.08415)."""
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def encoder(
    x: Array, weights: Mapping[str, Array], layers: int, heads: int, eps: float, integer: bool, behind: bool = False
) -> Array:  # fmt: skip
    """Return the output of an encoder's layers, before the last norm: every row of x [T, hidden] sees all. integer: whether linears'
    input is rounded to int8. behind: whether norms stand behind attention and MLP."""
    T, x = len(x), x.astype(np.float64)
    for i in range(layers):

        def project(rows: Array, name: str, i: int = i) -> Array:
            inputs = rounded(rows.astype(np.float32)) if integer else rows
            return linear(inputs, weights[f"layers.{i}.{name}.weight"], weights[f"layers.{i}.{name}.bias"])

        norms = [(weights[f"layers.{i}.layer_norm{n}.weight"], weights[f"layers.{i}.layer_norm{n}.bias"]) for n in (1, 2)]
        normed = x if behind else layer_norm(x, *norms[0], eps)
        q, k, v = (project(normed, f"self_attn.{part}_proj").reshape(T, heads, -1).swapaxes(0, 1) for part in "qkv")
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2])
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (shares / shares.sum(axis=2, keepdims=True) @ v).swapaxes(0, 1).reshape(T, -1)
        x = x + project(mixed, "self_attn.out_proj")
        x = layer_norm(x, *norms[0], eps) if behind else x
        x = x + project(gelu(project(x if behind else layer_norm(x, *norms[1], eps), "mlp.fc1")), "mlp.fc2")
        x = layer_norm(x, *norms[1], eps) if behind else x
    return x


def rotate(x: Array, cosine: Array, sine: Array) -> Array:
    """Apply rotary positions to x [T, heads, dim] with cosine, sine [T, dim/2]: pairs (i, i + dim/2) turn (arXiv 2104.09864)."""
    a, b = np.split(x, 2, axis=-1)
    c, s = cosine[:, None], sine[:, None]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def visible(queries: Array, keys: Array, full: bool, window: int, sinks: int) -> Array:
    """Return bool [Q, K]: whether the query at each position sees the key at each position. Without a window it sees no sinks either."""
    q, k = queries[:, None], keys[None, :]
    return (k <= q) & (full | ((window > 0) & ((k > q - window) | (k < sinks))))


def cached(x: Array, cache: str) -> Array:
    """Return keys or values [..., dim] as float64, after the rounding of `cache`, one of `core.state.CACHES`."""
    x = x.astype(np.float32)
    if cache == "int8":
        q, scale = to_int8(x)
        return q.astype(np.float64) * scale[..., None].astype(np.float64)
    return x.astype(cache).astype(np.float64)


def gelu_product(gate: Array, up: Array) -> Array:
    """Return gelu(gate) · up (GeGLU, arXiv 2002.05202)."""
    return gelu(gate) * up


def attention(q: Array, k: Array, v: Array, spec: LayerSpec, scale: float) -> Array:
    """Return attention of one whole sequence: q [T, heads, dim], k and v [T, groups, dim] → [T, heads, dim]; groups look back as `spec`
    says, and scores are multiplied by `scale`."""
    T, heads, _ = q.shape
    positions = np.arange(T)
    out = np.zeros(q.shape)
    for head in range(heads):
        group = head * k.shape[1] // heads
        scores = q[:, head] @ k[:, group].T * scale
        mask = visible(positions, positions, group in spec.retrieval, spec.window, spec.sinks)
        scores = np.where(mask, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-1e30))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True).clip(1e-30) @ v[:, group]
    return out


def memory(window: Array, q: Array, k: Array, v: Array, spec: LayerSpec, weights: Mapping[str, Array]) -> Array:
    """Return the heads' output of a layer, [T, heads, dim], with the memories of its streaming groups (arXiv 2412.06464 eq. 10; see
    mixers.py for what is ours).

    window: the output without memories; q [T, heads, dim], k and v [T, groups, dim]: before RoPE; weights: `q_map.weight` and so on.
    """
    T, heads, dim = q.shape
    shared = heads // k.shape[1]
    out = window.copy()
    for j, group in enumerate(spec.remembering(k.shape[1])):
        k_map, q_map = (weights[f"{name}.weight"][j * dim : (j + 1) * dim].astype(np.float64) for name in ("k_map", "q_map"))
        s = np.zeros((dim, dim))
        for t in range(max(0, spec.window + spec.sinks), T):
            p = t - spec.window
            key, both = unit(k_map @ k[p, group]), np.concatenate([k[p, group], v[p, group]])
            decay, write = (sigmoid(weights[f"{name}.weight"][j] @ both + weights[f"{name}.bias"][j]) for name in ("decay", "write"))
            s = decay * (s - write * np.outer(s @ key, key)) + write * np.outer(v[p, group], key)
            for r in range(shared):
                head, row = group * shared + r, j * shared + r
                aged = weights["age"][row] * np.log((p - spec.sinks + 1) / (t - spec.sinks + 1))
                share = sigmoid(weights["gate.weight"][row] @ q[t, head] + weights["gate.bias"][row] + aged)
                out[t, head] = (1 - share) * window[t, head] + share * (s @ unit(q_map @ q[t, head]))
    return out


class _Reading:
    """One whole sequence on its way through a decoder; see `decoder` for the arguments."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array], angles: Sequence[tuple[Array, Array]], integer: frozenset[str],
                 cache: str, adapter: Mapping[str, tuple[Array, Array, Array | None]]) -> None:  # fmt: skip
        self.config, self.weights, self.angles, self.integer, self.cache, self.adapter = config, weights, angles, integer, cache, adapter
        self.product = {"silu": silu_product, "gelu": gelu_product}[config.ways.activation]

    def project(self, x: Array, name: str) -> Array:
        inputs = rounded(x.astype(np.float32)) if name in self.integer else x
        y = linear(inputs, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))
        return y + addition(rounded(x.astype(np.float32)), *self.adapter[name]) if name in self.adapter else y

    def below(self, name: str) -> Callable[[Array, str], Array]:
        return lambda x, part: self.project(x, f"{name}.{part}")

    def norm(self, x: Array, name: str) -> Array:
        return rms_norm(x, self.weights[name], self.config.norm_eps) if name in self.weights else x

    def heads(self, x: Array, name: str) -> Array:
        whole = self.config.ways.whole_norm
        x = (self.norm(x, name) if whole else x).reshape(len(x), -1, self.config.head_dim)
        return x if whole else self.norm(x, name)

    def attend(self, x: Array, i: int) -> Array:
        """[T, hidden] → [T, heads · dim]."""
        name, spec, ways, dim, T = f"model.layers.{i}.self_attn", self.config.layers[i], self.config.ways, self.config.head_dim, len(x)
        q, gate = self.project(x, f"{name}.q_proj"), None
        if ways.gated:
            q, gate = (part.reshape(T, -1) for part in np.split(q.reshape(T, -1, 2 * dim), 2, axis=2))
        q, k = self.heads(q, f"{name}.q_norm.weight"), self.heads(self.project(x, f"{name}.k_proj"), f"{name}.k_norm.weight")
        v, (cosine, sine) = self.project(x, f"{name}.v_proj").reshape(T, -1, dim), self.angles[i]
        turned = rotate(k, cosine, sine)
        if self.cache != "float32":
            turned, v = cached(turned, self.cache), cached(v, self.cache)
            length = cosine**2 + sine**2  # 1, but for yarn, which makes keys longer, too
            k = rotate(turned, cosine / length, -sine / length)  # what a memory gets of them
        mixed = attention(rotate(q, cosine, sine), turned, v, spec, ways.attention_scale or dim**-0.5)
        if spec.remembering(k.shape[1]):
            prefix = f"{name}.memory."
            own = {n.removeprefix(prefix): w for n, w in self.weights.items() if n.startswith(prefix)}
            mixed = memory(mixed, q, k, v, spec, own)
        mixed = mixed.reshape(T, -1)
        return mixed if gate is None else mixed * sigmoid(gate)

    def mix(self, x: Array, i: int) -> Array:
        mixer, config = self.config.layers[i].mixer, self.config
        part, last = {"attention": ("self_attn", "o_proj")}.get(mixer, ("conv" if mixer == "convolution" else "linear_attn", "out_proj"))
        name = f"model.layers.{i}.{part}"
        project, weight = self.below(name), lambda part: self.weights[f"{name}.{part}"]
        if mixer == "convolution" and config.convolution is not None:
            y = convolution(x, config.convolution, project, weight)
        elif mixer == "delta" and config.delta is not None:
            y = delta(x, config.delta, config.norm_eps, project, weight)
        else:
            y = self.attend(x, i)
        return project(y, last)

    def think(self, x: Array, i: int) -> Array:
        project, experts = self.below(f"model.layers.{i}.mlp"), self.config.experts_at(i)
        if experts is not None:
            return mixture(x, experts, project, self.product)
        return project(self.product(project(x, "gate_proj"), project(x, "up_proj")), "down_proj")


def decoder(
    config: ModelConfig,
    weights: Mapping[str, Array],
    ids: Sequence[int],
    angles: Sequence[tuple[Array, Array]],
    integer: frozenset[str],
    cache: str,
    adapter: Mapping[str, tuple[Array, Array, Array | None]] = MappingProxyType({}),
    vectors: Vectors = NO_VECTORS,
) -> Array:
    """Return logits float64 [T, vocabulary] of one whole sequence.

    weights: by Hugging Face's names; angles: for each layer cosine and sine [T, dim/2]; integer: names of linears whose input is rounded to
    int8; cache: number type of keys and values; adapter: A, B and b by the name of a linear (its input is rounded too); vectors: of ids
    beyond the vocabulary.
    """
    reading, ways = _Reading(config, weights, angles, integer, cache, adapter), config.ways
    table = weights["model.embed_tokens.weight"]
    x = np.stack([vectors[id_] if id_ in vectors else table[id_] * ways.embedding_scale for id_ in ids]).astype(np.float64)
    before, after = ways.norm_names
    for i in range(len(config.layers)):
        layer = f"model.layers.{i}"
        for sublayer, first, last in zip((reading.mix, reading.think), before, after, strict=True):
            y = sublayer(reading.norm(x, f"{layer}.{first}.weight"), i)
            x = x + ways.residual_scale * reading.norm(y, f"{layer}.{last}.weight")
    head = "lm_head" if "lm_head.weight" in weights else "model.embed_tokens"
    return reading.project(reading.norm(x, "model.norm.weight"), head) * ways.logit_scale


def unpack_adapter(config: ModelConfig, additions: Additions) -> dict[str, tuple[Array, Array, Array | None]]:
    """Return A, B and the bias of every linear with the kernels' rounding, float64: the naive reference of the packing."""

    def rounded_as_packed(matrix: Array) -> Array:
        matrix = matrix.astype(np.float32)  # before it is rounded, as there: ties fall elsewhere in float64
        scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
        rounded: Array = np.rint(matrix / np.where(scale > 0, scale, 1)) * scale
        return rounded.astype(np.float64)

    check_additions(config, additions)
    return {name: (rounded_as_packed(addition.a), rounded_as_packed(addition.b), addition.bias) for name, addition in additions.items()}
