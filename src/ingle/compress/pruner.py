"""The contract of a pruner. To add one, put a file into compress/pruners: the file's name is its name, its first line its title.

A file holds `LOOKS`, whether it needs the activations of a text, and `CUTS`, a function for each structure that it can cut:

none, 2:4   `Sparse`: which weights of a linear become zero, all over it or two of every four neighbours
channels    `Units`: which channels of an MLP go; a unit is a column of its down projection
heads       `Units`: which key-value groups go with their query heads; a unit is the columns of the output projection that they feed
layers      `Depth`: which layers go
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingle.compress.calibration import Inputs
from ingle.core.errors import ConfigError

Structure = Literal["none", "2:4", "channels", "heads", "layers"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)
BEST: Mapping[Structure, str] = {"none": "sparsegpt", "2:4": "sparsegpt", "channels": "width", "heads": "width", "layers": "depth"}
"""The pruner of each structure that costs the least; see docs/prune.md."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Result of cutting a matrix."""

    stays: Tensor
    """Kept parts: bool [N, K] of weights, or int64 [units], ascending."""
    weight: Tensor | None = None
    """float32: new weights, [N, K] with zeros, or [N, columns of the units that stay]; None = the old ones."""


@dataclass(frozen=True, slots=True, eq=False)
class PrunedBlock:
    """Units of one layer, as columns of the matrix that adds them up."""

    weight: Tensor
    """float32 [N, units · size]: down or output projection."""
    inputs: Inputs
    """Inputs of this matrix."""
    size: int
    """Columns of a unit."""
    squares: Tensor
    """float32 [units]: sum of the squares of all weights that go with a unit, in this matrix and in those before it."""


Sparse = Callable[[Tensor, Inputs, float, int], Cut]
"""(weight float32 [N, K], its inputs, share that becomes zero, of every so many neighbours or 0) → `Cut` of weights."""
Units = Callable[[PrunedBlock, int], Cut]
"""(block, units that stay) → `Cut` of units."""
Depth = Callable[[Tensor, int], Tensor]
"""(influence float32 [layers]: 1 − mean cosine of a layer's input and output, layers that stay) → int64, ascending."""


def names(structure: Structure | None = None) -> list[str]:
    """Names of all pruners, or of those that can cut a structure, alphabetically."""
    import ingle.compress.pruners as folder

    all_names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return [name for name in all_names if structure is None or structure in _module(name).CUTS]


def find_pruner(name: str, structure: Structure) -> Any:
    """Return the function of that pruner for that structure. Raises ConfigError with the known ones."""
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        raise ConfigError(
            "method", f"There is no pruning method {name}", "", f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names())}."
        )
    cuts: Mapping[str, Any] = _module(name).CUTS
    if structure not in cuts:
        cure = f"It cuts {', '.join(cuts)}. For {structure} take {' or '.join(names(structure))}."
        raise ConfigError("method", f"The method {name} can't prune {structure}", "", cure)
    return cuts[structure]


def looks(name: str) -> bool:
    """Whether a pruner needs the activations of a text."""
    wants: bool = _module(name).LOOKS
    return wants


def title(name: str) -> str:
    """Title of a pruner, one line."""
    return (_module(name).__doc__ or "").split("\n")[0]


def largest(scores: Tensor, share: float, of: int) -> Tensor:
    """bool as `scores` [N, K]: all but the share with the smallest scores, in each row; or of every `of` neighbours in a row.

    Ties are broken by position, so that exactly the share goes. Raises ConfigError where K is no multiple of `of`.
    """
    rows, columns = scores.shape
    width = of or columns
    if columns % width:
        raise ConfigError("structure", f"needs a multiple of {width} inputs", columns, "Choose --structure none.")
    groups = scores.reshape(rows, -1, width)
    gone = groups.argsort(dim=-1, stable=True)[..., : round(width * share)]
    return torch.ones(groups.shape, dtype=torch.bool).scatter_(-1, gone, False).view(rows, columns)


def top(scores: Tensor, count: int) -> Tensor:
    """Places of the largest scores: int64 [count], ascending."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def columns_of(units: Tensor, size: int) -> Tensor:
    """Columns of these units: int64."""
    return (units[:, None] * size + torch.arange(size)).flatten()


def _module(name: str) -> Any:
    return importlib.import_module(f"ingle.compress.pruners.{name}")
