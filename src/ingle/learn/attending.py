"""Attention of a row's documents, forward and back, in float32 NumPy and by our kernels (kernels/packed_attention.py): one thread, so that
the same row gives the same bits.

Shapes: T tokens in a row, N that ask, G groups, R query heads a group, D head_dim.
"""

from collections.abc import Callable

import numpy as np

from ingle.core.spec import LayerSpec
from ingle.kernels import packed_attention as at
from ingle.kernels.jit import kernel
from ingle.kernels.packed_attention import AttentionPlan
from ingle.learn.pieces import Angles, Array, Back, LayerWeights, sigmoid, turned
from ingle.learn.remembering import remember
from ingle.train.shared_rows import DocumentRow

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
