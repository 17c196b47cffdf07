"""The contract of a quantiser. To add one, put a file into compress/quantisers: the file's name is its name, its first line its title.
The file holds `QUANTISER`, as below.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.weight_formats import Quantised, WeightFormat
from ingle.core.errors import ConfigError
from ingle.model.module import DecoderLayer

Fold = Callable[[DecoderLayer, Mapping[str, Inputs], Mapping[str, WeightFormat]], tuple[str, ...]]
"""Changes a layer's weights in place so that they round better, but not the layer's output. Gets the inputs of each linear, by name
(`mlp.down_proj`), and the formats of the linears to be rounded. Returns the other parameters that it changed."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """A way to put a matrix on a grid."""

    quantise: Callable[[Tensor, Inputs | None, WeightFormat], Quantised]
    """float32 [N, K], K a multiple of 32, to codes; the inputs are None unless `calibrated`. Doesn't change its arguments."""
    calibrated: bool = False
    """Whether it needs the linear's inputs."""
    guided: bool = False
    """Whether tokens weigh as much as they matter to the model's predictions: takes one more reading forward and back."""
    fold: Fold | None = None
    """Change of each layer before quantising."""


def names() -> list[str]:
    """Names of all quantisers, alphabetically."""
    import ingle.compress.quantisers as folder

    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def find_quantiser(name: str) -> Quantiser:
    """Return the quantiser of that name. Raises ConfigError with the known ones."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        cure = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
        raise ConfigError("method", "must be a known quantiser", name, cure)
    module: Any = importlib.import_module(f"ingle.compress.quantisers.{name}")
    quantiser: Quantiser = module.QUANTISER
    return quantiser


def title(name: str) -> str:
    """Title of a quantiser, one line."""
    return (importlib.import_module(f"ingle.compress.quantisers.{name}").__doc__ or "").split("\n")[0]
