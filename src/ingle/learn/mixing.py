"""Mixers of tokens in a layer, forward and back: attention, the gated short convolution, and the gated delta rule (core/spec.py).

Shapes: T tokens in a row, A of them wanted, C channels.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from ingle.core.spec import LayerSpec
from ingle.kernels import packed_attention as at
from ingle.kernels.jit import kernel
from ingle.kernels.packed_attention import AttentionPlan
from ingle.learn.pieces import Angles, Array, Back, LayerWeights, sigmoid, softplus, turned, unit
from ingle.train.shared_rows import DocumentRow

# The gated delta rule of one head over one document (arXiv 2412.06464), with gradients, in float32 NumPy: what memories of hybrids and Qwen
# 3.5's mixer are trained through.
# S ← α S (I − β φ φᵀ) + β v φᵀ, y = S q
# The whole document is one chunk, so there is no walk: U = (1 + tril(β Γ ⊙ K Kᵀ, −1))⁻¹ β V and Y = tril(Γ ⊙ Q Kᵀ) U, Γ_ij the product of α
# from j + 1 to i. `model.module_parts.chunked` gives the same in PyTorch.
# Shapes: L tokens, R queries a token, D width.


Slopes = tuple[Array, Array, Array, Array, Array]


def delta_rule(q: Array, k: Array, v: Array, decay: Array, write: Array) -> tuple[Array, Callable[[Array], Slopes]]:
    """Read from an empty state: q [L, R, D], k and v [L, D], log α and β [L] → y [L, R, D], and what gives the gradients of all five."""
    length, repeats, _ = q.shape
    seen = np.tri(length, dtype=np.bool_)
    logs = np.cumsum(decay)
    ratio = np.exp(np.where(seen, logs[:, None] - logs, np.float32(-np.inf)))
    pairs, scores = k @ k.T, (q.reshape(length * repeats, -1) @ k.T).reshape(length, repeats, length)
    system = np.tril(write[:, None] * ratio * pairs, -1) + np.eye(length, dtype=np.float32)
    update = np.linalg.solve(system, write[:, None] * v)
    weights = ratio[:, None] * scores

    def back(g: Array) -> Slopes:
        to_weights = np.einsum("ird,jd->irj", g, update, optimize=True)
        to_update = np.einsum("irj,ird->jd", weights, g, optimize=True)
        to_scores, to_ratio = to_weights * ratio[:, None], (to_weights * scores).sum(1)
        to_sides = np.linalg.solve(system.T, to_update)
        to_system = np.tril(-to_sides @ update.T, -1)
        to_write = (to_sides * v).sum(-1) + (to_system * ratio * pairs).sum(-1)
        to_ratio += to_system * write[:, None] * pairs
        to_pairs = to_system * write[:, None] * ratio
        to_k = np.einsum("irj,ird->jd", to_scores, q, optimize=True) + (to_pairs + to_pairs.T) @ k
        moved = to_ratio * ratio
        to_logs = moved.sum(1) - moved.sum(0)
        to_q = (to_scores.reshape(length * repeats, -1) @ k).reshape(q.shape)
        return to_q, to_k, write[:, None] * to_sides, np.cumsum(to_logs[::-1])[::-1], to_write

    return (weights.reshape(length * repeats, -1) @ update).reshape(q.shape), back


# Recurrent memories of streaming groups (model/module_parts.py), read by packed documents, with gradients, in float32 NumPy.
# Shapes: T tokens in a row, G groups that remember, R query heads a group, D head_dim.


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


# Attention of a row's documents, forward and back, in float32 NumPy and by our kernels (kernels/packed_attention.py): one thread, so that
# the same row gives the same bits.
# Shapes: T tokens in a row, N that ask, G groups, R query heads a group, D head_dim.


Three = tuple[Array, Array, Array]
_LANES = 32  # numbers of a head that the kernels take together


def attention(own: LayerWeights, x: Array, row: DocumentRow, angles: Angles, last: bool) -> tuple[Array, Back]:
    """Apply a layer's attention: x [T, hidden] → same shape; of the last layer the wanted tokens alone, [A, hidden]."""
    config, ways, linears = own.config, own.config.ways, own.linears
    groups, dim, asking = config.num_kv_heads, config.head_dim, (x[row.wanted] if last else x)
    (q, back_q), (k, back_k), (v, back_v) = (linears[f"self_attn.{name}_proj"](of) for name, of in (("q", asking), ("k", x), ("v", x)))
    gate = None
    if ways.gated:
        q, gate = (np.ascontiguousarray(part) for part in np.split(q.reshape(len(q), -1, 2 * dim), 2, -1))
        gate = gate.reshape(len(gate), -1)
    (q, back_qn), (k, back_kn), v = _normed(own, "q_norm", q), _normed(own, "k_norm", k), v.reshape(len(x), groups, dim)
    factor = np.float32(ways.attention_scale * dim**0.5) if ways.attention_scale else np.float32(1)
    q = (q * factor).reshape(len(q), groups, -1, dim)
    seen, back_seen = _seen(own, q, k, v, row, angles, last)
    flat = seen.reshape(len(q), -1)
    open_ = None if gate is None else sigmoid(gate)
    y, back_out = linears["self_attn.o_proj"](flat if open_ is None else flat * open_)

    def back(g: Array) -> Array:
        to_flat = back_out(g)
        to_gate = None
        if open_ is not None:
            to_gate, to_flat = to_flat * flat * open_ * (1 - open_), to_flat * open_
        to_q, to_k, to_v = back_seen(to_flat.reshape(seen.shape))
        to_q = back_qn((to_q * factor).reshape(len(q), -1, dim))
        if to_gate is not None:
            to_q = np.concatenate([to_q, to_gate.reshape(to_q.shape)], -1)
        to_x = back_k(back_kn(to_k).reshape(len(x), -1)) + back_v(to_v.reshape(len(x), -1))
        to_asking = back_q(to_q.reshape(len(q), -1))
        if last:
            to_x[row.wanted] += to_asking
            return to_x
        return to_x + to_asking

    return y, back


def _normed(own: LayerWeights, name: str, x: Array) -> tuple[Array, Back]:
    """Normalise heads, or all of them together, where this family does: → [T, heads, D]."""
    dim, norm, whole = own.config.head_dim, own.norms.get(f"self_attn.{name}"), own.config.ways.whole_norm
    if norm is None:
        return x.reshape(len(x), -1, dim), lambda g: g
    y, back = norm(x.reshape(len(x), -1) if whole else x.reshape(len(x), -1, dim))
    return y.reshape(len(x), -1, dim), lambda g: back(g.reshape(len(g), -1) if whole else g).reshape(len(g), -1, dim)


def _seen(
    own: LayerWeights, q: Array, k: Array, v: Array, row: DocumentRow, angles: Angles, last: bool
) -> tuple[Array, Callable[[Array], Three]]:  # fmt: skip
    """Attend with each kind of groups, and read their memories: q [N, G, R, D], k and v [T, G, D], none turned → [N, G, R, D]."""
    spec, groups, (cos, sin) = own.config.layers[own.index], own.config.num_kv_heads, angles
    turned_q, turn_q = turned(q, *((cos[row.wanted], sin[row.wanted]) if last else angles))
    turned_k, turn_k = turned(k, cos, sin)
    kinds: list[tuple[LayerSpec | None, list[int]]] = [(None, list(spec.retrieval)), (spec, list(spec.streaming(groups)))]
    out, backs = np.zeros_like(q), []
    for kind, chosen in kinds:
        if chosen and (kind is None or kind.window):
            out[:, chosen], back = attend(turned_q[:, chosen], turned_k[:, chosen], v[:, chosen], row.plan(kind, last))
            backs.append((chosen, back))
    back_memory = _remembered(own, out, q, k, v, row, last)

    def back_all(g: Array) -> Three:
        g, *raw = back_memory(g)
        to_q, to_k, to_v = (np.zeros_like(x) for x in (q, k, v))
        for chosen, back in backs:
            to_q[:, chosen], to_k[:, chosen], to_v[:, chosen] = back(g[:, chosen])
        return turn_q(to_q) + raw[0], turn_k(to_k) + raw[1], to_v + raw[2]

    return out, back_all


def _remembered(
    own: LayerWeights, out: Array, q: Array, k: Array, v: Array, row: DocumentRow, last: bool
) -> Callable[[Array], tuple[Array, Array | int, Array | int, Array | int]]:  # fmt: skip
    """Blend, in place, what the groups that remember saw in their windows with their memories; return what gives the gradients of that,
    q, k and v."""
    spec = own.config.layers[own.index]
    chosen = list(spec.remembering(own.config.num_kv_heads))
    if not chosen:
        return lambda g: (g, 0, 0, 0)
    weights = {name.removeprefix("self_attn.memory."): one for name, one in own.weights.items()}

    def whole(x: Array) -> Array:
        """[N, G, R, D] → [T, chosen, R, D]: what no wanted token has is zeros."""
        if not last:
            return x[:, chosen]
        y = np.zeros((len(k), len(chosen), *x.shape[2:]), np.float32)
        y[row.wanted] = x[:, chosen]
        return y

    y, back = remember(weights, spec, row.bounds, whole(out), whole(q), k[:, chosen], v[:, chosen])
    out[:, chosen] = y[row.wanted] if last else y

    def back_all(g: Array) -> tuple[Array, Array, Array, Array]:
        to_window, to_q, to_k, to_v = g.copy(), *(np.zeros_like(x) for x in (q, k, v))
        window, asking, to_k[:, chosen], to_v[:, chosen] = back(whole(g))
        to_window[:, chosen], to_q[:, chosen] = (window[row.wanted], asking[row.wanted]) if last else (window, asking)
        return to_window, to_q, to_k, to_v

    return back_all


def attend(q: Array, k: Array, v: Array, plan: AttentionPlan) -> tuple[Array, Callable[[Array], Three]]:
    """Attend: turned q [N, G, R, D], turned k and v [T, G, D] → [N, G, R, D], and what gives q's, k's and v's gradients for its own."""
    dim = q.shape[-1]
    wide_q, wide_k, wide_v = (_wide(x) for x in (q, k * np.float32(dim**-0.5), v))
    inputs = {"Q": wide_q, "K": wide_k, "V": wide_v, "K_TRANSPOSED": _transposed(wide_k), "V_TRANSPOSED": _transposed(wide_v)}
    out, sums = np.empty_like(wide_q), np.empty((*wide_q.shape[:3], 2), np.float32)
    _run("packed_forward", plan, inputs | {"OUT": out, "SUMS": sums}, [])

    def back(g: Array) -> Three:
        to_out = _wide(g)
        inner = (to_out * out).sum(-1)
        to_q, to_k, to_v = np.empty_like(wide_q), np.zeros_like(wide_k), np.zeros_like(wide_v)
        _run("packed_backward", plan, inputs | {"SUMS": sums, "INNER": inner, "TO_OUT": to_out, "TO_Q": to_q}, [to_k, to_v])
        to_q, to_k, to_v = (x.swapaxes(0, 1)[..., :dim] for x in (to_q, to_k, to_v))
        return to_q, to_k * np.float32(dim**-0.5), to_v

    return out.swapaxes(0, 1)[..., :dim], back


def _wide(x: Array) -> Array:
    """[tokens, G, …, D] → [G, tokens, …, D], zeros behind D up to a whole number of lanes: they change no score."""
    rest = -x.shape[-1] % _LANES
    return np.ascontiguousarray(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, rest)]).swapaxes(0, 1))


def _run(name: str, plan: AttentionPlan, arrays: dict[str, Array], slopes: list[Array]) -> None:
    blocks, runs = plan.records()
    groups, queries, repeats, width = arrays["Q"].shape
    record = np.zeros(len(at.FIELDS), np.int64)
    record[[at.WIDTH, at.REPEATS, at.QUERIES, at.TOKENS]] = width, repeats, queries, arrays["K"].shape[1]
    record[[at.TRANSPOSED_LINE, at.BLOCKS, at.RUNS]] = arrays["K_TRANSPOSED"].shape[-1], blocks.ctypes.data, runs.ctypes.data
    for field, array in arrays.items():
        assert array.flags.c_contiguous and array.dtype == np.float32, field
        record[at.FIELDS.index(field)] = array.ctypes.data
    [tasks] = plan.tasks(groups, 1)
    room = np.empty(at.scratch_floats(plan.most_queries * repeats), np.float32)
    kernel(name)(record.ctypes.data, tasks.ctypes.data, len(tasks), room.ctypes.data, *(slope.ctypes.data for slope in slopes))


def _transposed(x: Array) -> Array:
    """[G, T, D] → [G, D, T and padding that a kernel may read]; lines are no power of two long."""
    groups, tokens, dim = x.shape
    line = (tokens + 31) // 16 * 16
    out = np.zeros((groups, dim, line + 16 if line % 256 == 0 else line), np.float32)
    out[..., :tokens] = x.swapaxes(1, 2)
    return out


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
