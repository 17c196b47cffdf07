"""Tensors of GGUF that hold the numbers of ours in another form."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ingle.core.errors import CheckpointError
from ingle.core.spec import ModelConfig
from ingle.model.expected import expected_shapes
from ingle.model.tensor import Tensor

_EXPERTS = ".mlp.experts."


def as_ours(config: ModelConfig, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return experts apart, taps with their middle dimension of 1, and logarithms of the decays: all of them lie otherwise in GGUF.

    Raises CheckpointError for another number of experts, and decays that are none.
    """
    shapes, found = expected_shapes(config), dict[str, Tensor]()
    for name, tensor in tensors.items():
        shape = shapes.get(name, ())
        if _EXPERTS in name:
            found |= _apart(config, tensor, where)
        elif len(shape) == 3 and tensor.shape == (shape[0], shape[2]):
            found[name] = replace(tensor, shape=shape)
        elif name.endswith(".A_log"):
            found[name] = _logarithms(tensor, where)
        else:
            found[name] = tensor
    return found


def _apart(config: ModelConfig, tensor: Tensor, where: str) -> dict[str, Tensor]:
    """Return each expert's linear; its rows are mapped as before."""
    head, _, tail = tensor.name.partition(_EXPERTS)
    count = config.experts.count if config.experts else 0
    if len(tensor.shape) != 3 or tensor.shape[0] != count:
        raise CheckpointError(f"{where}: {tensor.name}", f"must hold {count} experts, one after the other", tensor.shape)
    rows, apart = tensor.shape[1], dict[str, Tensor]()
    for number in range(count):
        name = f"{head}{_EXPERTS}{number}.{tail}"
        apart[name] = Tensor(name, tensor.shape[1:], tensor.kind, tensor.raw[number * rows : (number + 1) * rows])
    return apart


def _logarithms(tensor: Tensor, where: str) -> Tensor:
    decays = tensor.to_float32()
    if not (decays < 0).all():
        raise CheckpointError(f"{where}: {tensor.name}", "must hold numbers below 0, minus the decays", float(decays.max()))
    return replace(tensor, kind="F32", data=np.log(-decays).view(np.uint8))
