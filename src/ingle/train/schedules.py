"""Learning rates as pure functions of the step: a factor from 0 to 1, which multiplies the peak.

`wsd`: warm-up, stable, decay to the floor by 1 − √ (arXiv 2405.18392); `cosine`: warm-up, then half a cosine to the floor; `constant`:
warm-up, then 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Schedule:
    """Schedule of the learning rate."""

    kind: Literal["wsd", "cosine", "constant"] = "wsd"
    warm_up: float = 0.05
    """Share of all steps in which the rate rises from 0."""
    decay: float = 0.3
    """`wsd`: share of all steps in which the rate falls."""
    floor: float = 0.0
    """Where the rate ends, as a share of the peak."""

    def __post_init__(self) -> None:
        for name in ("warm_up", "decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name}", "must be between 0 and 1", getattr(self, name))
        if self.kind == "wsd" and self.warm_up + self.decay > 1:
            raise ConfigError("schedule.warm_up, .decay", "must not add up to more than 1", self.warm_up + self.decay)

    def factor(self, step: int, steps: int) -> float:
        """Factor of step number `step` of `steps`, from 0. The first step never has a factor of 0."""
        rise = math.ceil(self.warm_up * steps)
        if step < rise:
            return (step + 1) / rise
        fall = {"wsd": math.ceil(self.decay * steps), "cosine": steps - rise, "constant": 0}[self.kind]
        done = step - (steps - fall)
        if fall == 0 or done < 0:
            return 1.0
        return self.floor + (1 - self.floor) * _FALL[self.kind](done / fall)


_FALL: dict[str, Callable[[float], float]] = {"wsd": lambda x: 1 - math.sqrt(x), "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}
