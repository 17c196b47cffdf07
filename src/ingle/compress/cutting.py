"""Cutting a model layer by layer: each reads what the layers before it, as they are now, hand on; its tensors are kept at once.

FOLDER/NN.safetensors    the delta's tensors of one layer
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn

from ingle.compress.calibration import STAGES, Inputs, Stream
from ingle.compress.prune_settings import PruneSettings
from ingle.compress.pruner import PrunedBlock, columns_of, find_pruner, looks
from ingle.core.files import write_atomic
from ingle.engine.cut_model import CHANNELS, GROUPS, LAYERS, pack_mask
from ingle.model.module import CausalLM

Array = npt.NDArray[Any]
LINEARS = tuple(name for stage in STAGES for name in stage)
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Cutting:
    """A job: the model to cut, the settings, and the folder."""

    module: CausalLM
    """The whole model; it stays as it is."""
    settings: PruneSettings
    staying: int
    """See `parts_that_stay`."""
    rows: Tensor
    """Token ids to read, int64 [rows, tokens]."""
    folder: Path
    tell: Tell = lambda _done, _of: None


@torch.no_grad()
def cut(job: Cutting) -> dict[str, Array]:
    """Return the tensors of a delta of the kind `mask` or `shape`. Stopped at any moment, the same call goes on with the next layer."""
    if job.settings.structure == "layers":
        return {LAYERS: find_pruner(job.settings.pruner, "layers")(influence(job), job.staying).numpy().astype(np.float32)}
    layers: Any = job.module.model.layers
    seen = looks(job.settings.pruner)
    batch = job.settings.calibration.batch
    stream = Stream(job.module, job.rows, batch) if seen else None
    original = Stream(job.module, job.rows, batch) if seen and job.settings.structure in ("channels", "heads") else None
    by_layer: list[dict[str, Array]] = []
    for i, layer in enumerate(layers):
        job.tell(i, len(layers))
        mine, path = deepcopy(layer), job.folder / f"{i:03}.safetensors"
        tensors = _read_layer(path)
        if tensors is None:
            tensors = _of_units(job, mine, layer, stream, original) if original or not _sparse(job) else _of_weights(job, mine, stream)
            write_atomic(path, save(tensors), mode=0o600)
        by_layer.append(tensors)
        _apply(job, mine, tensors)
        for one, moved in ((stream, mine), (original, layer)):
            if one is not None:
                one.advance(moved)
    job.tell(len(layers), len(layers))
    named = {f"model.layers.{i}.{key}": values for i, tensors in enumerate(by_layer) for key, values in tensors.items() if key != _STAYS}
    if _sparse(job):
        return named
    chosen = CHANNELS if job.settings.structure == "channels" else GROUPS
    named[LAYERS] = np.arange(len(layers), dtype=np.float32)
    named[chosen] = np.stack([tensors[_STAYS] for tensors in by_layer]).astype(np.float32)
    return named


@torch.no_grad()
def influence(job: Cutting) -> Tensor:
    """Influence of each layer, float32 [layers]: 1 − mean cosine of its input and its output, over all tokens (arXiv 2403.03853)."""
    stream, values = Stream(job.module, job.rows, job.settings.calibration.batch), []
    layers: Any = job.module.model.layers
    for i, layer in enumerate(layers):
        job.tell(i, len(layers))
        before = stream.states.clone()
        stream.advance(layer)
        values.append(1 - nn.functional.cosine_similarity(before, stream.states, dim=-1).mean())
    job.tell(len(layers), len(layers))
    return torch.stack(values)


_STAYS = "stays"
_NOTHING = Inputs(0, torch.zeros(0, 0))


def _sparse(job: Cutting) -> bool:
    return job.settings.structure in ("none", "2:4")


def _of_weights(job: Cutting, layer: Any, stream: Stream | None) -> dict[str, Array]:
    """Cut all linears of a layer, by their inputs while the layer is whole, as the papers do it."""
    prune, of = find_pruner(job.settings.pruner, job.settings.structure), 4 if job.settings.structure == "2:4" else 0
    inputs = stream.inputs(layer, LINEARS) if stream is not None else dict.fromkeys(LINEARS, _NOTHING)
    tensors: dict[str, Array] = {}
    for name in LINEARS:
        choice = prune(layer.get_submodule(name).weight, inputs[name], job.settings.share, of)
        tensors[f"{name}.mask"] = pack_mask(choice.stays.numpy())
        if choice.weight is not None:
            tensors[f"{name}.kept"] = choice.weight[choice.stays].numpy().astype(np.float16)
    return tensors


def _of_units(job: Cutting, mine: Any, theirs: Any, stream: Stream | None, original: Stream | None) -> dict[str, Array]:
    """Cut the channels or the groups of a layer."""
    name, config = _output(job), job.module.config
    linear = mine.get_submodule(name)
    inputs = _NOTHING
    if stream is not None and original is not None:
        inputs = stream.inputs(mine, (name,), (original, theirs))[name]
    size = 1 if job.settings.structure == "channels" else config.queries_per_group * config.head_dim
    squares = linear.weight.square().sum(0).view(-1, size).sum(1)
    for part in ("mlp.gate_proj", "mlp.up_proj") if size == 1 else ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        squares = squares + mine.get_submodule(part).weight.square().sum(1).view(len(squares), -1).sum(1)
    block = PrunedBlock(linear.weight, inputs, size, squares)
    choice = find_pruner(job.settings.pruner, job.settings.structure)(block, job.staying)
    tensors: dict[str, Array] = {_STAYS: choice.stays.numpy().astype(np.int64)}
    if choice.weight is not None:
        tensors[f"{name}.weight"] = choice.weight.numpy().astype(np.float16)
    return tensors


def _apply(job: Cutting, layer: Any, tensors: Mapping[str, Array]) -> None:
    """Change the layer as the delta will. Removed units get zeros in the output matrix: the same sums, and no shapes to change."""
    if _sparse(job):
        for name in LINEARS:
            weight = layer.get_submodule(name).weight
            stays = torch.from_numpy(np.unpackbits(tensors[f"{name}.mask"], axis=1, count=weight.shape[1])).bool()
            if f"{name}.kept" in tensors:
                weight[stays] = torch.from_numpy(tensors[f"{name}.kept"].astype(np.float32))
            weight *= stays
        return
    name = _output(job)
    weight, stored_weight = layer.get_submodule(name).weight, tensors.get(f"{name}.weight")
    size = 1 if job.settings.structure == "channels" else job.module.config.queries_per_group * job.module.config.head_dim
    columns = columns_of(torch.from_numpy(tensors[_STAYS]), size)
    stays = weight[:, columns].clone() if stored_weight is None else torch.from_numpy(stored_weight.astype(np.float32))
    weight.zero_()
    weight[:, columns] = stays


def _output(job: Cutting) -> str:
    return "mlp.down_proj" if job.settings.structure == "channels" else "self_attn.o_proj"


def _read_layer(path: Path) -> dict[str, Array] | None:
    """Read a layer's tensors from an earlier sitting; None if there are none, or they can't be read."""
    try:
        tensors: dict[str, Array] = load(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    return tensors
