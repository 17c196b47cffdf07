"""A delta on the original model by formulas of the tests' own, or by what the engine says of its kind: the oracle of methods and files."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ingle.core.spec import ModelConfig
from ingle.engine.delta_kinds import MERGED, Change, merged
from ingle.model.checkpoint import Checkpoint
from ingle.model.module import load_module
from ingle.model.module_parts import PackedRows
from ingle.model.tensor import Tensor
from ingle.train.writing import GrowingAttention


def checkpoint_of(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> Checkpoint:
    """float32 arrays by name as a checkpoint."""
    stored = {}
    for name, values in weights.items():
        raw = np.ascontiguousarray(values, np.float32).view(np.uint8)
        stored[name] = Tensor(name, values.shape, "F32", raw.reshape(values.shape[0], -1) if values.ndim == 2 else raw)
    return Checkpoint(config, (), stored)


@torch.no_grad()
def logits_with(checkpoint: Checkpoint, kind: str, tensors: Mapping[str, Any], ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of the original model with the delta."""
    if kind in MERGED:
        return load_module(merged(checkpoint, [Change("tuned", kind, tensors)]))(ids)
    module = load_module(checkpoint)
    if kind == "bottleneck":
        for linear in {key.split(".adapter_")[0] for key in tensors}:
            down, down_bias, up, up_bias = (
                torch.from_numpy(tensors[f"{linear}.adapter_{part}"]) for part in ("down.weight", "down.bias", "up.weight", "up.bias")
            )
            module.get_submodule(linear).register_forward_hook(
                lambda _m, _x, y, d=down, a=down_bias, u=up, b=up_bias: y + torch.relu(y @ d.T + a) @ u.T + b
            )
        return module(ids)
    keys, values = (torch.from_numpy(tensors[f"prefix.{part}"]) for part in ("keys", "values"))
    (texts, length), before = ids.shape, keys.shape[2]
    attend = GrowingAttention(torch.full((before,), -1), torch.arange(before), list(zip(keys, values, strict=True)))
    positions = torch.arange(before, before + length).float().repeat(texts)
    attend.add(torch.arange(texts).repeat_interleave(length), positions)
    states = module.read(ids.flatten(), positions, PackedRows(attend, tuple(range(0, ids.numel() + 1, length))))
    return module.logits(module.model.norm(states)).view(texts, length, -1)
