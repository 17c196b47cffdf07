"""Recipes of a search: from the registries of pruners and quantisers, the mildest of a family first.

A recipe is a chain of steps. Each step makes a delta on the result of the steps before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ingle.compress import pruner, quantiser
from ingle.compress.calibration import CalibrationSettings
from ingle.compress.prune import prune
from ingle.compress.prune_settings import PruneSettings, prunable_heads
from ingle.compress.quantising import quantise
from ingle.compress.recovery_settings import RecoverySettings
from ingle.compress.settings import QuantiseSettings
from ingle.core.candidate import Admit
from ingle.core.spec import ModelConfig
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.train.making import RunWatch


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One step of a recipe: it makes one delta."""

    settings: PruneSettings | QuantiseSettings

    @property
    def maker(self) -> str:
        """Its maker, by the gate's name."""
        return "prune" if isinstance(self.settings, PruneSettings) else "quantise"

    @property
    def family(self) -> str:
        """Family of steps that differ only in how much they take away."""
        if isinstance(self.settings, PruneSettings):
            return f"{self.settings.structure} by {self.settings.pruner}"
        return f"bits by {self.settings.method}"

    def __str__(self) -> str:
        """Text for people: `1/10 of layers by depth`, `4 bits by gptq`."""
        if isinstance(self.settings, PruneSettings):
            recovered = ", recovered" if self.settings.recovery.wanted else ""
            return (
                f"{Fraction(self.settings.share).limit_denominator(100)} of {self.settings.structure} by {self.settings.pruner}{recovered}"
            )
        return f"{self.settings.bits:g} bits by {self.settings.method}"

    def make(self, home: Home, kept: Kept, name: str, admit: Admit, watch: RunWatch) -> Kept:
        """Make the delta; return the model with it. Raises as `prune` and `quantise` do."""
        if isinstance(self.settings, PruneSettings):
            return prune(home, kept, name, self.settings, admit, watch).kept
        return quantise(home, kept, name, self.settings, admit, watch).kept


@dataclass(frozen=True, slots=True)
class CompressionRecipe:
    """A chain of steps."""

    steps: tuple[RecipeStep, ...]

    @property
    def family(self) -> str:
        """Family of the recipe; recipes of one family differ only in how much they take away."""
        return " + ".join(step.family for step in self.steps)

    def __str__(self) -> str:
        return " + ".join(map(str, self.steps))


@dataclass(frozen=True, slots=True)
class RecipeGrid:
    """Amounts that are tried of each kind."""

    bits: tuple[float, ...] = (8.0, 5.5, 4.0, 3.75, 3.5, 3.0)
    """Bits of quantisations."""
    quantisers: tuple[str, ...] = ("gptq",)
    """Quantisers to try; empty = all."""
    layers: tuple[int, ...] = (1, 2, 3, 6)
    """Numbers of layers to remove."""
    channels: tuple[float, ...] = (1 / 24, 1 / 12, 1 / 6, 1 / 4)
    """Shares of channels to remove, rounded to what speeds the kernels up."""
    heads: tuple[int, ...] = (1,)
    """Numbers of key-value groups to remove."""
    pruners: tuple[str, ...] = ()
    """Pruners to try; empty = for each structure the one that costs the least."""
    pruned_bits: float = 4.0
    """Bits in which pruned models are also tried: a pruning touches matrices, which are then served in 8. 0 = none."""


def recipes(config: ModelConfig, grid: RecipeGrid, calibration: CalibrationSettings, recovery: RecoverySettings) -> list[CompressionRecipe]:
    """List all recipes for a model of this config. Whether a quantisation applies to its file shows when it is tried."""
    methods = grid.quantisers or quantiser.names()

    def rounded(method: str, bits: float) -> RecipeStep:
        return RecipeStep(QuantiseSettings(bits=bits, method=method, calibration=calibration))

    quantised = [rounded(method, bits) for method in methods for bits in sorted(grid.bits, reverse=True)]
    pruned = [
        RecipeStep(PruneSettings(structure, share, method, calibration, recovery))
        for structure, shares in _shares(config, grid).items()
        for method in _methods(structure, grid)
        for share in shares
    ]
    all_recipes = [CompressionRecipe((step,)) for step in (*quantised, *pruned)]
    if grid.pruned_bits:
        all_recipes += [CompressionRecipe((step, rounded(methods[-1], grid.pruned_bits))) for step in pruned]
    return all_recipes


def _methods(structure: pruner.Structure, grid: RecipeGrid) -> Sequence[str]:
    known = pruner.names(structure)
    return [name for name in grid.pruners if name in known] or [pruner.BEST[structure]]


def _shares(config: ModelConfig, grid: RecipeGrid) -> dict[Any, list[float]]:
    """Shares that leave whole parts, ascending, by structure."""
    count, groups, lanes = len(config.layers), config.num_kv_heads, 32 if config.intermediate_size % 32 == 0 else 1
    blocks = config.intermediate_size // lanes
    by_structure: dict[Any, list[float]] = {"layers": [gone / count for gone in sorted(grid.layers) if gone < count]}
    chosen = sorted({round(share * blocks) for share in grid.channels})
    by_structure["channels"] = [gone / blocks for gone in chosen if 0 < gone < blocks]
    by_structure["heads"] = [gone / groups for gone in sorted(grid.heads) if gone < groups] if prunable_heads(config) else []
    return by_structure
