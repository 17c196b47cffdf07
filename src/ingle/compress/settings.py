"""What a quantisation is told."""

from dataclasses import dataclass, field

from ingle.compress.calibration import CalibrationSettings
from ingle.compress.quantiser import find_quantiser
from ingle.compress.recovery_settings import RecoverySettings
from ingle.compress.weight_formats import FORMS, USUAL, Form, find_form
from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class QuantiseSettings:
    """How the linears of a model's layers are written down. Its vocabulary is served in 8 bits whatever is said here."""

    bits: float = 4.0
    """Of a weight's code, in the mean over the linears of all layers: 3, 4, 8, or between, where the most sensitive get most. Scales and
    minima come on top: 1 bit a weight with 3 and 4, half a bit with 8."""
    forms: tuple[str, ...] = ()
    """Which linears may take: int3, int4, int8, or q4_1, which GGUF has; empty = the one of the first three of these `bits`, or all three
    where `bits` lie between."""
    method: str = "gptq"
    """A file of compress/quantisers."""
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    """What the model is shown, where the method wants to see it, or there is a choice of forms."""
    sensitivity_documents: int = 16
    """Rows by which sensitivity is measured: forward and back."""
    recovery: RecoverySettings = field(default_factory=lambda: RecoverySettings(learning_rate=3e-4))
    """Training of scales and minima when all layers are done."""

    def __post_init__(self) -> None:
        if not 3 <= self.bits <= 8:
            cure = "Below 3 bits there is no form: see docs/compress.md." if self.bits < 3 else "8 is as good as exact."
            raise ConfigError("bits", "must be from 3 to 8", self.bits, cure)
        for name in self.forms:
            find_form(name)
        find_quantiser(self.method)
        if self.sensitivity_documents < 1:
            raise ConfigError("sensitivity_documents", "must be at least 1", self.sensitivity_documents)

    @property
    def allowed(self) -> tuple[Form, ...]:
        """The forms that a linear may take, the one of fewest bits first."""
        own = [name for name in USUAL if FORMS[name].bits == self.bits]
        return tuple(sorted((FORMS[name] for name in self.forms or own or USUAL), key=lambda form: form.bits))
