"""The part of a layer behind its mixer, forward and back: the gated MLP, or a mixture of experts."""

import numpy as np

from ingle.learn.pieces import Array, Back, LayerWeights, gated


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
