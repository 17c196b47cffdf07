"""EfficientNet-Lite0 (arXiv 1905.11946, its `lite` variant: ReLU6, no squeeze-and-excitation), trained on ImageNet: 4.7 M parameters.

A picture becomes 7 × 7 places of 1,280 numbers. Batch norm is folded into the convolutions (eps 1e-3), borders are TensorFlow's (where
a border is uneven its larger part lies behind), pixels are (x − 127) / 128.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError
from ingle.media.painter import Convolution, Network
from ingle.media.state_dict import read_state_dict

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
# Pixels of a side; places of a side at the end, and the numbers of each; ImageNet's classes.
SIDE, PLACES, FEATURES, CLASSES = 224, 7, 1280, 1000
_EPS = 1e-3
_STEPS = {1: 2, 3: 2, 5: 2, 11: 2}  # blocks that halve the picture
_BLOCKS = 16


def convolutions(tensors: Mapping[str, Array]) -> list[Convolution]:
    """Return the network's convolutions in order. Raises CheckpointError for tensors of another network."""

    def folded(conv: str, norm: str, step: int = 1, clipped: bool = True, depthwise: bool = False, skip: int = 0) -> Convolution:
        weight, gain, shift, mean, variance = (
            tensors[name].astype(np.float64)
            for name in (f"{conv}.weight", *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
        )
        factor = gain / np.sqrt(variance + _EPS)
        narrow = (weight * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32)
        return Convolution(*narrow, step, clipped, depthwise, skip)

    try:
        found, channels = [folded("_conv_stem", "_bn0", 2)], 32
        for i in range(_BLOCKS):
            name, step = f"_blocks.{i}", _STEPS.get(i, 1)
            if i:
                found.append(folded(f"{name}._expand_conv", f"{name}._bn0"))
            found.append(folded(f"{name}._depthwise_conv", f"{name}._bn1", step, depthwise=True))
            out = len(tensors[f"{name}._project_conv.weight"])
            skip = 3 if step == 1 and out == channels else 0
            found.append(folded(f"{name}._project_conv", f"{name}._bn2", clipped=False, skip=skip))
            channels = out
        return [*found, folded("_conv_head", "_bn1")]
    except (KeyError, ValueError) as error:
        raise CheckpointError("EfficientNet-Lite0", "must hold its own tensors", error, "Fetch it again: `ingle pull sight`.") from error


class Eye:
    """The network with its weights, ready to look. Several threads may ask it; they wait for each other."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Read the weights and lay them out: a tenth of a second. Raises CheckpointError, HomeError."""
        tensors = read_state_dict(path)
        self.digest = digest_file(path)
        self.head: tuple[Floats, Floats] = tensors["_fc.weight"], tensors["_fc.bias"]  # ImageNet's classifier: [1000, 1280] and [1000]
        self._network = Network(convolutions(tensors), SIDE, 3, threads)

    def look(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the features of a picture: uint8 [224, 224, 3] → float32 [7, 7, 1280]. Raises KernelError."""
        return self._network((pixels.astype(np.float32) - np.float32(127)) / np.float32(128))
