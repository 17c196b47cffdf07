"""Mixers of tokens in a layer, forward and back: attention, the gated short convolution, and the gated delta rule (core/spec.py).

Shapes: T tokens in a row, A of them wanted, C channels.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ingle.learn.attending import attention
from ingle.learn.delta_rule import delta_rule
from ingle.learn.pieces import Angles, Array, Back, LayerWeights, sigmoid, softplus, unit
from ingle.train.shared_rows import DocumentRow


def mix(own: LayerWeights, x: Array, row: DocumentRow, angles: Angles, last: bool) -> tuple[Array, Back]:
    """Apply a layer's mixer: [T, hidden] → same shape; of the last layer the wanted tokens alone, [A, hidden]."""
    mixer = own.config.layers[own.index].mixer
    if mixer == "attention":
        return attention(own, x, row, angles, last)
    documents = [slice(begin, end) for begin, end in pairwise(row.bounds)]
    y, back = {"convolution": _short_convolution, "delta": _gated_delta}[mixer](own, x, documents)
    if not last:
        return y, back

    def back_wanted(g: Array) -> Array:
        whole = np.zeros_like(y)
        whole[row.wanted] = g
        return back(whole)

    return y[row.wanted], back_wanted


def _short_convolution(own: LayerWeights, x: Array, documents: list[slice]) -> tuple[Array, Back]:
    (both, back_in), width = own.linears["conv.in_proj"](x), x.shape[-1]
    into, out, values = (both[:, i * width : (i + 1) * width] for i in range(3))
    y, back_y = _convolved(into * values, own.weights["conv.conv.weight"], own.weights.get("conv.conv.bias"), documents)
    result, back_out = own.linears["conv.out_proj"](out * y)

    def back(g: Array) -> Array:
        to_product = back_out(g)
        to_inner = back_y(to_product * out)
        return back_in(np.concatenate([to_inner * values, to_product * y, to_inner * into], -1))

    return result, back


def _convolved(x: Array, taps: Array, bias: Array | None, documents: list[slice]) -> tuple[Array, Back]:
    """Each channel's convolution with its taps [C, 1, length], document by document: [T, C] → same shape."""
    each, shifts = taps[:, 0].T, range(taps.shape[-1])

    def moved(x: Array, back: bool) -> Array:
        y = np.zeros_like(x)
        for place in documents:
            for shift in shifts:
                before, after = (
                    slice(place.start, max(place.start, place.stop - shift)),
                    slice(min(place.stop, place.start + shift), place.stop),
                )
                source, target = (after, before) if back else (before, after)
                y[target] += x[source] * each[-1 - shift]
        return y

    return moved(x, False) + (0 if bias is None else bias), lambda g: moved(g, True)


def _gated_delta(own: LayerWeights, x: Array, documents: list[slice]) -> tuple[Array, Back]:
    sizes, linears, weights = own.config.delta, own.linears, own.weights
    assert sizes is not None, "ModelConfig checks it"
    (qkv, back_qkv), (z, back_z), (b, back_b), (a, back_a) = (linears[f"linear_attn.in_proj_{part}"](x) for part in ("qkv", "z", "b", "a"))
    mixed, back_mixed = _convolved(qkv, weights["linear_attn.conv1d.weight"], None, documents)
    heads, back_heads = _silu(mixed)
    heads = heads.reshape(len(x), -1, sizes.dim)
    raw_q, raw_k, v = np.split(heads, [sizes.key_heads, 2 * sizes.key_heads], 1)
    (q, back_q), (k, back_k) = unit(raw_q), unit(raw_k)
    steps, write = a + weights["linear_attn.dt_bias"], sigmoid(b)
    rate, factor = np.exp(weights["linear_attn.A_log"]), np.float32(sizes.dim**-0.5)
    decay = -rate * softplus(steps)
    y, backs = np.empty_like(v), list[tuple[slice, int, int, Callable[[Array], tuple[Array, ...]]]]()
    for place in documents:
        for head in range(sizes.value_heads):
            key = head % sizes.key_heads if sizes.tiled else head // (sizes.value_heads // sizes.key_heads)
            asked = (q[place, key] * factor)[:, None]
            read, back_read = delta_rule(asked, k[place, key], v[place, head], decay[place, head], write[place, head])
            y[place, head] = read[:, 0]
            backs.append((place, head, key, back_read))
    normed, back_norm = own.norms["linear_attn.norm"](y)
    gate, back_gate = _silu(z.reshape(v.shape))
    result, back_out = linears["linear_attn.out_proj"]((normed * gate).reshape(len(x), -1))

    def back(g: Array) -> Array:
        to_product = back_out(g).reshape(v.shape)
        to_y = back_norm(to_product * gate)
        to_q, to_k, to_v, to_decay, to_write = (np.zeros_like(one) for one in (q, k, v, decay, write))
        for place, head, key, back_read in backs:
            slopes = back_read(to_y[place, head][:, None])
            to_q[place, key] += slopes[0][:, 0] * factor
            to_k[place, key] += slopes[1]
            to_v[place, head], to_decay[place, head], to_write[place, head] = slopes[2:]
        to_heads = np.concatenate([back_q(to_q), back_k(to_k), to_v], 1).reshape(len(x), -1)
        to_x = back_qkv(back_mixed(back_heads(to_heads))) + back_z(back_gate(to_product * normed).reshape(z.shape))
        return to_x + back_b(to_write * write * (1 - write)) + back_a(-to_decay * rate * sigmoid(steps))

    return result, back


def _silu(x: Array) -> tuple[Array, Back]:
    half = sigmoid(x)
    return x * half, lambda g: g * half * (1 + x * (1 - half))
