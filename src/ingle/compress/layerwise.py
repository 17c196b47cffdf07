"""Quantisation layer by layer: each linear is put on its grid, by the inputs that the layers before, as they are now, hand on.

FOLDER/layer-I.safetensors      what replaces parameters of layer I; written when the layer is done
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.compress.calibration import STAGES, Inputs, Stream, Tell
from ingle.compress.quantiser import Quantiser
from ingle.compress.solving import error_of
from ingle.compress.weight_formats import WeightFormat
from ingle.core.files import write_atomic
from ingle.engine.delta_kinds import stored
from ingle.model.module import CausalLM, DecoderLayer

Array = npt.NDArray[Any]


def _silent(_done: int, _all: int) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Texts that a model reads while it is quantised."""

    rows: Tensor
    """Rows of token ids, from `make_rows`."""
    weights: Mapping[str, Tensor] | None = None
    """By parameter, the weight of each token, from `guidance`; None = all alike."""
    batch: int = 8
    """Rows read at once."""


@dataclass(frozen=True, slots=True)
class Layerwise:
    """Result of quantising all layers."""

    tensors: Mapping[str, Array]
    """By parameter: blocks uint8 [N, bytes] of quantised linears, float32 of parameters that scales were folded into."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """By parameter: squared error of the outputs (without calibration: of the weights) as a share of their square."""


def quantise_layers(
    module: CausalLM, shown: Shown | None, quantiser: Quantiser, formats: Mapping[str, WeightFormat],
    folder: Path | None = None, tell: Tell = _silent,
) -> Layerwise:  # fmt: skip
    """Quantise the linears in `formats` (by parameter), the first layer first. `shown`: the texts; None for a quantiser that is not
    calibrated. The module stays as it is. Layers that `folder` holds are not made again.

    `tell` hears layers done, of all; an error that it raises ends the run, and the same call goes on from there.
    """
    assert shown is not None or not quantiser.calibrated, "a calibrated quantiser needs texts"
    stream = Stream(module, shown.rows, shown.batch) if shown is not None else None
    tensors, errors, count = dict[str, Array](), dict[str, float](), len(module.model.layers)
    for index, layer in enumerate(module.model.layers):
        tell(index, count)
        assert isinstance(layer, DecoderLayer)
        prefix, ours = f"model.layers.{index}.", copy.deepcopy(layer)
        chosen = {name.removeprefix(prefix).removesuffix(".weight"): way for name, way in formats.items() if name.startswith(prefix)}
        earlier = _read(folder, index)
        if earlier is None:
            weights = None if shown is None or shown.weights is None else {name: shown.weights[f"{prefix}{name}.weight"] for name in chosen}
            new, off = _quantise_layer(ours, chosen, quantiser, stream, weights)
            _write(folder, index, new, off)
        else:
            new, off = earlier
            _replace(ours, new)
        tensors |= {f"{prefix}{name}": value for name, value in new.items()}
        errors |= {f"{prefix}{name}": value for name, value in off.items()}
        if stream is not None and index + 1 < count:
            stream.advance(ours)
    tell(count, count)
    return Layerwise(tensors, errors)


def _quantise_layer(
    ours: DecoderLayer,
    formats: Mapping[str, WeightFormat],
    quantiser: Quantiser,
    stream: Stream | None,
    weights: Mapping[str, Tensor] | None,
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return this layer's new parameters, by their names within it, and the errors. The layer itself is changed, too."""
    new, errors = dict[str, Array](), dict[str, float]()
    if quantiser.fold is not None and stream is not None and formats:
        folded = quantiser.fold(ours, stream.inputs(ours, list(formats)), formats)
        new |= {name: ours.get_parameter(name).detach().numpy().copy() for name in folded}
    for stage in STAGES:
        names = [name for name in stage if name in formats]
        if not names:
            continue
        inputs: Mapping[str, Inputs] = stream.inputs(ours, names, weights=weights) if stream is not None else {}
        for name in names:
            weight = ours.get_parameter(f"{name}.weight").detach()
            seen = inputs.get(name)
            on_grid = quantiser.quantise(weight, seen, formats[name])
            hessian = torch.eye(weight.shape[1], dtype=torch.float64) if seen is None else seen.hessian
            whole = error_of(weight, torch.zeros_like(weight), hessian)
            errors[f"{name}.weight"] = error_of(weight, on_grid.values, hessian) / max(whole, 1e-30)
            new[f"{name}.weight"] = on_grid.blocks()
            _set(ours, f"{name}.weight", on_grid.values)
    return new, errors


def _replace(layer: DecoderLayer, new: Mapping[str, Array]) -> None:
    for name, value in new.items():
        shape = tuple(layer.get_parameter(name).shape)
        _set(layer, name, torch.from_numpy(stored(name, shape, value).to_float32()))


def _set(layer: DecoderLayer, name: str, values: Tensor) -> None:
    owner, _, part = name.rpartition(".")
    setattr(layer.get_submodule(owner), part, nn.Parameter(values, requires_grad=False))


def _path(folder: Path, index: int) -> Path:
    return folder / f"layer-{index}.safetensors"


def _write(folder: Path | None, index: int, made: Mapping[str, Array], errors: Mapping[str, float]) -> None:
    if folder is None:
        return
    from safetensors.numpy import save

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(_path(folder, index), save(dict(made), {"errors": json.dumps(errors)}), mode=0o600)


def _read(folder: Path | None, index: int) -> tuple[dict[str, Array], dict[str, float]] | None:
    """Read an earlier sitting's layer, if it is whole."""
    if folder is None or not _path(folder, index).exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path(folder, index), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["errors"])  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
