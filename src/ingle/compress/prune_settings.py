"""Settings of pruning, and the number of parts that a share of a model means."""

from dataclasses import dataclass, field

from ingle.compress.calibration import CalibrationSettings
from ingle.compress.pruner import BEST, Structure, find_pruner
from ingle.compress.recovery_settings import RecoverySettings
from ingle.core.errors import ConfigError
from ingle.core.spec import ModelConfig

_NEAR = 0.02
"""Tolerance, in parts: so a share may be written with few digits."""
_LANES = 32
"""Channels that the kernels multiply together: any other number costs as much as the next multiple."""


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """Settings of one pruning."""

    structure: Structure = "layers"
    """Parts to prune: layers, channels of MLPs, heads (key-value groups), two of every four weights (2:4), or any weights (none)."""
    share: float = 0.2
    """Share of these parts to prune."""
    method: str = ""
    """A pruner: a file in compress/pruners; empty = the one that costs the least (`BEST`)."""
    calibration: CalibrationSettings = field(default_factory=lambda: CalibrationSettings(documents=64, tokens=512))
    """Texts to calibrate on."""
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    """Training that makes up for the loss."""
    rank: int = 32
    """Rank of the low-rank additions of the recovery."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError("share", "must be above 0 and below 1", self.share, "For example 1/4.")
        if self.structure == "2:4" and self.share != 0.5:
            raise ConfigError("share", "must be 0.5 for 2:4: two of every four weights go", self.share, "The nearest is 0.5.")
        if self.rank < 1:
            raise ConfigError("rank", "must be at least 1", self.rank)
        find_pruner(self.pruner, self.structure)

    @property
    def pruner(self) -> str:
        """Name of the pruner."""
        return self.method or BEST[self.structure]


def prunable_heads(config: ModelConfig) -> bool:
    """Return whether heads can go without changing the others: all attention is full, and no norm spans them."""
    return config.is_transformer and not (config.qk_norm and config.ways.whole_norm)


def parts_that_stay(config: ModelConfig, settings: PruneSettings) -> int:
    """Count the layers that stay, or the channels or key-value groups in each; 0 where single weights are pruned.

    Raises ConfigError, with the nearest share, for one that leaves no whole number of them, and for groups of a hybrid.
    """
    config.check_plain("pruned")
    if settings.structure in ("none", "2:4"):
        return 0
    if settings.structure == "heads" and not prunable_heads(config):
        what = "one norm spans all heads of this model" if config.is_transformer else "this is a hybrid"
        cure = "Choose another structure." if config.is_transformer else "Prune the original model."
        raise ConfigError("structure", f"Heads can be pruned only where all attention is full and they share no norm, and {what}", "", cure)
    lanes = _LANES if settings.structure == "channels" and config.intermediate_size % _LANES == 0 else 1
    all_parts = {"layers": len(config.layers), "channels": config.intermediate_size // lanes, "heads": config.num_kv_heads}
    of = all_parts[settings.structure]
    gone = settings.share * of
    if abs(gone - round(gone)) > _NEAR or not 0 < round(gone) < of:
        near = sorted({min(max(1, number), of - 1) for number in (int(gone), int(gone) + 1)})
        what = f"{of} {settings.structure}" if lanes == 1 else f"{of} times {lanes} channels"
        if of < 2:
            raise ConfigError("structure", f"must leave at least one of {what}", settings.share, "Choose another structure.")
        cure = "The nearest: " + " or ".join(f"{number}/{of} = {number / of:.4g}" for number in near) + "."
        raise ConfigError("share", f"must be a whole number of {what}", f"{settings.share:.4g}, which is {gone:.2f}", cure)
    return (of - round(gone)) * lanes
