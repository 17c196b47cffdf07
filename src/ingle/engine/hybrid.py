"""The kind `layers`: retrieval and streaming groups of each layer, and their memories. See engine/delta_kinds.py for the others.

| tensor | means |
|---|---|
| layers.retrieval [layers, groups] | 1 = a retrieval group, 0 = a streaming group |
| layers.window, layers.sinks [layers] | of the streaming groups |
| layers.memory [layers] | 1 = streaming groups have a recurrent memory |
| model.layers.i.self_attn.memory.… | the memories' parameters, see model/memory.py |

All are numbers in float32, so that a delta stays what it is: named tensors. It applies to a transformer only; for other
retrieval groups, make another delta for the original model.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ConfigError, DeltaError
from ingle.core.spec import LayerSpec, ModelConfig
from ingle.model.expected import AGE, expected_shapes

Array = npt.NDArray[Any]
KIND = "layers"
_RETRIEVAL, _WINDOW, _SINKS, _MEMORY = (f"layers.{part}" for part in ("retrieval", "window", "sinks", "memory"))
_MOST = 1 << 20  # tokens of a window; float32 holds them exactly


def spec_tensors(layers: tuple[LayerSpec, ...], kv_groups: int) -> dict[str, Array]:
    """Return these layers' groups, windows, sinks and memories as tensors."""
    retrieval = [[float(group in spec.retrieval) for group in range(kv_groups)] for spec in layers]
    rows = {_RETRIEVAL: retrieval, _WINDOW: [spec.window for spec in layers], _SINKS: [spec.sinks for spec in layers]}
    rows[_MEMORY] = [float(spec.memory != "none") for spec in layers]
    return {name: np.array(values, np.float32) for name, values in rows.items()}


def hybrid_of(name: str, config: ModelConfig, tensors: Mapping[str, Array]) -> tuple[ModelConfig, dict[str, Array]]:
    """Return the transformer's config changed by these tensors, and the parameters of its memories. `name` is for messages.

    Raises DeltaError for a model that is a hybrid already, and for tensors that are missing, misshapen, unknown, or describe no possible
    layer.
    """
    where = f"delta {name}"
    if not config.is_transformer:
        raise DeltaError(where, "applies to a model with full attention only", "a hybrid", "Make it for the original model.")
    shape = (len(config.layers), config.num_kv_heads)
    columns = {part: _whole(where, part, tensors, shape[:1]) for part in (_WINDOW, _SINKS, _MEMORY)}
    retrieval = _whole(where, _RETRIEVAL, tensors, shape)
    if retrieval.max() > 1 or columns[_MEMORY].max() > 1:
        raise DeltaError(f"{where}, layers", "must hold 0 or 1 for retrieval and memory", "other numbers")
    layers = tuple(
        LayerSpec(
            tuple(np.flatnonzero(retrieval[i]).tolist()),
            int(columns[_WINDOW][i]),
            int(columns[_SINKS][i]),
            "gated_delta" if columns[_MEMORY][i] else "none",
        )
        for i in range(len(config.layers))
    )
    try:
        hybrid = config.with_layers(layers)
    except ConfigError as error:
        raise DeltaError(f"{where}, {error.field}", error.rule, error.got) from error
    new_shapes = {key: size for key, size in expected_shapes(hybrid).items() if key not in expected_shapes(config)}
    for key, size in new_shapes.items():
        if key.endswith(AGE) and key not in tensors:
            continue
        if key not in tensors or tensors[key].shape != size:
            raise DeltaError(f"{where}, {key}", f"must have shape {size}", tensors[key].shape if key in tensors else "nothing")
        if not np.isfinite(tensors[key]).all():
            raise DeltaError(f"{where}, {key}", "must hold finite numbers", "NaN or infinity")
    strangers = [key for key in tensors if key not in new_shapes and not key.startswith("layers.")]
    if strangers:
        raise DeltaError(f"{where}, {strangers[0]}", "is no part of a change of kind layers", "")
    return hybrid, {key: tensors[key] for key in new_shapes if key in tensors}


def _whole(where: str, part: str, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    """Return non-negative whole numbers as int64. Raises DeltaError for others."""
    values = tensors.get(part)
    if values is None or values.shape != shape:
        raise DeltaError(f"{where}, {part}", f"must have shape {shape}", "nothing" if values is None else values.shape)
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any() or numbers.min() < 0 or numbers.max() > _MOST:
        raise DeltaError(f"{where}, {part}", f"must hold whole numbers from 0 to {_MOST}", "others")
    return numbers.astype(np.int64)
