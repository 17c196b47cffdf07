"""A packed batch through a module, up to the states from which the loss is computed.

Only what the loss depends on is computed: the last layer reads all tokens, but gives the states of those rows alone that predict
something with a loss. Autograd keeps nothing of the layers below the first trained parameter.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ingle.model.module import CausalLM
from ingle.model.module_parts import PackedRows
from ingle.train.attention import attend_on
from ingle.train.kernel_memory import read_packed
from ingle.train.packing import Batch


def final_states(module: CausalLM, batch: Batch, first: int = 0, x: Tensor | None = None, recompute: bool = False) -> Tensor:
    """States after the final norm at `batch.rows`: [A, hidden].

    `x` [T, hidden]: the input of layer `first`, if that is known already. `recompute`: each layer keeps its input only and runs again in
    the backward pass (arXiv 1604.06174): a third more time, a fraction of the memory.
    """
    packed = PackedRows(attend_on(batch.ids.device, batch.edges, batch.rows), batch.edges, batch.rows, read_packed)
    if x is None:
        x = module.model.embed_tokens(batch.ids)
    cos, sin = module.angles(batch.positions, x.dtype)
    layers = module.model.layers[first:]
    for layer in layers:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(layer, x, cos, sin, packed, use_reentrant=False)
        else:
            x = layer(x, cos, sin, packed)
    if not len(layers):
        x = x[batch.rows]
    y: Tensor = module.model.norm(x)
    return y


@torch.no_grad()
def lower_states(module: CausalLM, ids: Tensor, layers: int, bounds: Sequence[int] | None = None) -> Tensor:
    """Inputs of layer number `layers`: [T, hidden], of one document, or of several on end."""
    bounds = bounds or (0, len(ids))
    x: Tensor = module.model.embed_tokens(ids)
    positions = torch.cat([torch.arange(b - a, device=ids.device, dtype=torch.float32) for a, b in pairwise(bounds)])
    cos, sin = module.angles(positions, x.dtype)
    packed = PackedRows(attend_on(ids.device, bounds), tuple(bounds), read=read_packed)
    for layer in module.model.layers[:layers]:
        x = layer(x, cos, sin, packed)
    return x


def first_trained_layer(module: CausalLM, names: Sequence[str]) -> int:
    """The lowest layer that holds one of these parameters; 0 if one lies below the layers, their number if all lie above."""
    prefix, lowest = "model.layers.", len(module.model.layers)
    for name in names:
        if name.startswith(prefix):
            lowest = min(lowest, int(name[len(prefix) :].split(".")[0]))
        elif not name.startswith(("model.norm.", "lm_head.")):
            return 0
    tied = module.lm_head.weight is module.model.embed_tokens.weight
    return 0 if tied and "lm_head.weight" in names else lowest
