"""What a quantiser is, and which there are. To add one, put a file into compress/quantisers: its name is the quantiser's name, its first
line its title. The file holds `QUANTISER`, as below.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.compress.weight_formats import Form, Quantised
from ingle.core.errors import ConfigError
from ingle.model.module import Layer

Fold = Callable[[Layer, Mapping[str, Inputs], Mapping[str, Form]], tuple[str, ...]]
"""Changes a layer's weights in place so that they round better, and not what the layer computes. Told what comes to each linear, by name
(`mlp.down_proj`), and the forms of those that will be rounded. Returns the parameters that it changed and that will not be."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """One way to put a matrix on a grid."""

    quantise: Callable[[Tensor, Inputs | None, Form], Quantised]
    """float32 [N, K], K a multiple of 32, to codes; of inputs None is given unless `calibrated`. Does not change what it is given."""
    calibrated: bool = False
    """Whether it wants to know what comes to the linear."""
    guided: bool = False
    """Whether tokens are to weigh as much as what the model says hangs on them: takes one reading forward and back more."""
    fold: Fold | None = None
    """What is done to each layer first."""


def names() -> list[str]:
    """Every quantiser, alphabetically."""
    import ingle.compress.quantisers as folder

    return sorted(found.name for found in pkgutil.iter_modules(folder.__path__))


def find_quantiser(name: str) -> Quantiser:
    """The quantiser of that name. Raises ConfigError with the known ones."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        cure = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
        raise ConfigError("method", "must be a known quantiser", name, cure)
    module: Any = importlib.import_module(f"ingle.compress.quantisers.{name}")
    quantiser: Quantiser = module.QUANTISER
    return quantiser


def title(name: str) -> str:
    """What a quantiser does, in a line."""
    return (importlib.import_module(f"ingle.compress.quantisers.{name}").__doc__ or "").split("\n")[0]
