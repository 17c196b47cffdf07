"""Compare the energy model with hardware counters, where there are some, on the same work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingle.core.energy import NOTHING, Energy
from ingle.energy.meter import Meter
from ingle.energy.rapl import CURE

WINDOW_S = 1.0
"""Seconds of one reading; a counter may be some milliseconds late."""


@dataclass(frozen=True, slots=True)
class PeerCheck:
    """Both figures for the same windows."""

    seconds: float
    counted: Energy
    modelled: Energy

    @property
    def error(self) -> float:
        """The model's error as a share of the counted energy: +0.5 is half too much."""
        return self.modelled.joules / self.counted.joules - 1

    @property
    def within(self) -> bool:
        """Whether the counted energy lies in the model's interval."""
        return self.modelled.low <= self.counted.joules <= self.modelled.high


def check(meter: Meter, seconds: float = 10.0, work: Callable[[], None] | None = None) -> PeerCheck | None:
    """Work for so long (on all cores through NumPy, unless `work` is given) and compare. None where no counter can be read."""
    work = work or _products()
    began = first = meter.read()
    counted, modelled = NOTHING, NOTHING
    while first.awake_s - began.awake_s < seconds:
        while meter.clocks.awake_s() - first.awake_s < WINDOW_S:
            work()
        last = meter.read()
        window = meter.counted(first, last)
        if window is not None:
            counted, modelled = counted + window, modelled + meter.modelled(first, last)
        first = last
    return PeerCheck(first.awake_s - began.awake_s, counted, modelled) if counted.joules > 0 else None


def sources(meter: Meter) -> list[tuple[str, str, str]]:
    """Return (source, what is known of it, what would help) in order of trust."""
    machine = meter.machine
    names = ", ".join(domain.name for domain in meter.rapl.domains)
    rapl = {
        "readable": (f"counted by {names}" + ("" if meter.rapl.covers_memory else ", without the memory"), ""),
        "locked": ("present, but you may not read them", CURE),
        "none": ("no counters" + (": the hypervisor shows none" if machine.virtual else " under /sys/class/powercap"), ""),
    }[meter.rapl.state]
    watts = meter.batteries.watts()
    battery = "none" if not meter.batteries.folders else "not in use" if watts is None else f"gives {watts:.1f} W"
    cpu = machine.cpu
    row = f"{machine.name}: {cpu.name}, {cpu.watts:g} W per busy core ({cpu.low:g} – {cpu.high:g}; {cpu.source}, {cpu.year})"
    cure = "" if cpu.known else "The interval is wide for that reason; a row for it may be added to energy/table.py."
    return [("rapl", *rapl), ("battery", battery, ""), ("model", row, cure)]


def _products() -> Callable[[], None]:
    matrix = np.ones((768, 768), np.float32)

    def work() -> None:
        np.matmul(matrix, matrix)

    return work
