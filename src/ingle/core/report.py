"""A measurement: nothing is reported without its interval, its n, and the digests of what was measured on what."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """One figure and how far to trust it."""

    name: str
    """What was measured, e.g. `bits_per_byte`."""
    value: float
    unit: str
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """How many items (documents, questions, runs) the figure rests on."""
    model_digest: str
    data_digest: str
    interval: str = "95 % bootstrap"
    """How `low` and `high` were made."""
    seed: int | None = None
