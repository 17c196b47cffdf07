"""Settings of a quantisation."""

from dataclasses import dataclass, field

from ingle.compress.calibration import CalibrationSettings
from ingle.compress.quantiser import find_quantiser
from ingle.compress.recovery_settings import RecoverySettings
from ingle.compress.weight_formats import FORMATS, USUAL, WeightFormat, find_format
from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class QuantiseSettings:
    """Settings of quantising the linears of a model's layers. The vocabulary is served in 8 bits in any case."""

    bits: float = 4.0
    """Bits of a weight's code, in the mean over the linears of all layers: 3, 4, 8, or between; then the most sensitive linears get most.
    Scales and minima come on top: 1 bit a weight with 3 and 4, half a bit with 8."""
    forms: tuple[str, ...] = ()
    """Formats that linears may take: int3, int4, int8, or q4_1, which GGUF has; empty = the one of the first three with these `bits`, or
    all three where `bits` lie between."""
    method: str = "gptq"
    """A file of compress/quantisers."""
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    """Texts that the model reads, where the method needs its activations, or there is a choice of formats."""
    sensitivity_documents: int = 16
    """Rows on which sensitivity is measured, forward and back."""
    recovery: RecoverySettings = field(default_factory=lambda: RecoverySettings(learning_rate=3e-4))
    """Training of scales and minima after all layers are quantised."""

    def __post_init__(self) -> None:
        if not 3 <= self.bits <= 8:
            cure = "Below 3 bits there is no format: see docs/compress.md." if self.bits < 3 else "8 is as good as exact."
            raise ConfigError("bits", "must be from 3 to 8", self.bits, cure)
        for name in self.forms:
            find_format(name)
        find_quantiser(self.method)
        if self.sensitivity_documents < 1:
            raise ConfigError("sensitivity_documents", "must be at least 1", self.sensitivity_documents)

    @property
    def allowed(self) -> tuple[WeightFormat, ...]:
        """Formats that a linear may take, the one of fewest bits first."""
        own = [name for name in USUAL if FORMATS[name].bits == self.bits]
        return tuple(sorted((FORMATS[name] for name in self.forms or own or USUAL), key=lambda format_: format_.bits))
