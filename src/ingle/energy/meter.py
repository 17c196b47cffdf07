"""The energy meter: this process's energy between two readings, from the most trustworthy source there is.

CPU   RAPL's counters; else a discharging battery; else the model
GPU   NVML's counters, for the GPUs that the process computes on; where these can't be read, the source says so

Counters count the whole machine. This process gets its share of all processes' CPU-seconds, and `high` is all of it. Times count only while
the machine is awake. Counters may restart after a sleep, so such a window is left to the model.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ingle.core.energy import NOTHING, Energy
from ingle.energy import nvml
from ingle.energy.battery import find_batteries
from ingle.energy.machine import find_machine
from ingle.energy.model import estimate, memory
from ingle.energy.nvml import Gpus
from ingle.energy.rapl import find_rapl

_SHARE_S = 0.2
"""Least seconds over which the share among processes is measured: the system counts in hundredths."""
_ASLEEP_S = 0.25
"""A longer gap between the clocks means that the machine slept."""
_RESIDENT_S = 1.0


def _boot_s() -> float:
    """Return seconds since the start, sleep included; where the system doesn't tell, as if it never slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a meter."""

    awake_s: Callable[[], float] = time.monotonic
    """Stops while the machine sleeps."""
    boot_s: Callable[[], float] = _boot_s
    """Goes on while the machine sleeps."""
    cpu_s: Callable[[], float] = time.process_time
    """CPU-seconds of all threads of this process."""


@dataclass(frozen=True, slots=True)
class MeterReading:
    """All counters at one moment."""

    awake_s: float
    boot_s: float
    cpu_s: float
    resident_bytes: int
    share: float
    """This process's share of the CPU-seconds that all processes used lately."""
    rapl_uj: tuple[int, ...] | None
    battery_w: float | None
    gpu_mj: tuple[int, ...] | None


@dataclass
class Meter:
    """Reads counters, and returns the energy between two readings. Threads may share it: a race costs a stale share, not a joule."""

    root: Path = Path("/")
    """The folder that holds `sys` and `proc`."""
    clocks: Clocks = field(default_factory=Clocks)
    gpus: Gpus = field(default_factory=lambda: Gpus(()))

    def __post_init__(self) -> None:
        self.machine, self.rapl, self.batteries = find_machine(self.root), find_rapl(self.root), find_batteries(self.root)
        self._resident, self._read_at = (float("-inf"), 0), float("-inf")
        self._counts = self.rapl.state == "readable" or bool(self.batteries.folders)
        self._share, self._since = 1.0, (self.clocks.awake_s(), self.clocks.cpu_s(), busy_s(self.root) if self._counts else None)

    def read(self) -> MeterReading:
        """Read all counters. Takes a few µs, and some 20 µs for each counter."""
        awake, cpu = self.clocks.awake_s(), self.clocks.cpu_s()
        self._read_at = awake
        if self._counts and awake - self._since[0] >= _SHARE_S:
            self._update_share(awake, cpu)
        battery = self.batteries.watts() if self._counts and self.rapl.state != "readable" else None
        return MeterReading(
            awake, self.clocks.boot_s(), cpu, self._resident_now(awake), self._share, self.rapl.read(), battery, self.gpus.read()
        )

    def begin(self) -> MeterReading:
        """Read the counters at the beginning of a task. After a pause, earlier CPU use no longer counts for the share."""
        if self._counts and self.clocks.awake_s() - self._read_at >= _SHARE_S:
            self._since = (self.clocks.awake_s(), self.clocks.cpu_s(), busy_s(self.root))
        return self.read()

    def between(self, first: MeterReading, last: MeterReading) -> Energy:
        """Return this process's energy from one reading to another."""
        counted = self.counted(first, last)
        return (self.modelled(first, last) if counted is None else counted) + self._gpu(first, last)

    def modelled(self, first: MeterReading, last: MeterReading) -> Energy:
        """Return the energy without GPUs by the model, whatever counters there are."""
        resident = max(first.resident_bytes, last.resident_bytes)
        return estimate(self.machine, max(0.0, last.cpu_s - first.cpu_s), max(0.0, last.awake_s - first.awake_s), resident)

    def counted(self, first: MeterReading, last: MeterReading) -> Energy | None:
        """Return the energy without GPUs by hardware alone; None where hardware can't say."""
        elapsed = last.awake_s - first.awake_s
        if abs((last.boot_s - first.boot_s) - elapsed) > _ASLEEP_S:
            return None
        if first.rapl_uj is not None and last.rapl_uj is not None:
            whole = self.rapl.joules(first.rapl_uj, last.rapl_uj, elapsed)
            if whole is None:
                return None
            mine = whole * last.share
            rest = NOTHING if self.rapl.covers_memory else memory(self.machine, elapsed, last.resident_bytes)
            least = min(mine, self.modelled(first, last).low)  # whoever shares by CPU-seconds shares what runs anyway, too
            return Energy(mine, least, whole + rest.high, "rapl")  # what is not counted may only widen
        if first.battery_w is not None and last.battery_w is not None:
            whole = elapsed * (first.battery_w + last.battery_w) / 2
            mine = whole * last.share
            return Energy(mine, min(mine, self.modelled(first, last).low), whole, "battery")
        return None

    def _gpu(self, first: MeterReading, last: MeterReading) -> Energy:
        if not self.gpus.wanted:
            return NOTHING
        gpu_j = None if first.gpu_mj is None or last.gpu_mj is None else nvml.joules(first.gpu_mj, last.gpu_mj)
        return Energy(0.0, 0.0, 0.0, "model, without the GPU") if gpu_j is None else Energy(gpu_j, gpu_j, gpu_j, "nvml")

    def _update_share(self, awake: float, cpu: float) -> None:
        _, mine_before, all_before = self._since
        busy = busy_s(self.root)
        if busy is not None and all_before is not None and busy > all_before:
            self._share = min(1.0, (cpu - mine_before) / (busy - all_before))
        self._since = (awake, cpu, busy)

    def _resident_now(self, awake: float) -> int:
        at, nbytes = self._resident
        if awake - at >= _RESIDENT_S:
            nbytes = self._resident_bytes()
            self._resident = (awake, nbytes)
        return nbytes

    def _resident_bytes(self) -> int:
        try:
            pages = int((self.root / "proc" / "self" / "statm").read_text("ascii").split()[1])
            return pages * os.sysconf("SC_PAGESIZE")
        except (OSError, ValueError, IndexError):
            return 0


@cache
def open_meter(gpus: tuple[str, ...] = ()) -> Meter:
    """Return the meter of this process, for work on its CPU and on these GPUs (their UUIDs)."""
    return Meter(gpus=Gpus(gpus))


class Span:
    """The energy since its beginning, read piece by piece, so that no counter overflows twice."""

    def __init__(self, meter: Meter, pace_s: float = 1.0) -> None:
        """`pace_s`: seconds between readings."""
        self._meter, self._pace_s = meter, pace_s
        self._last = meter.begin()
        self.total = NOTHING
        """The energy up to the last reading."""

    def tick(self) -> Energy | None:
        """Return the energy since the last reading; None, without a reading, if that is less than `pace_s` ago."""
        if self._meter.clocks.awake_s() - self._last.awake_s < self._pace_s:
            return None
        return self.end_of_piece()

    def end_of_piece(self) -> Energy:
        """Return the energy since the last reading, however little."""
        reading = self._meter.read()
        taken = self._meter.between(self._last, reading)
        self._last, self.total = reading, self.total + taken
        return taken

    def end(self) -> Energy:
        """Return all of the energy up to now."""
        self.end_of_piece()
        return self.total


def busy_s(root: Path = Path("/")) -> float | None:
    """Return CPU-seconds that all processes used since the system's start; None where it doesn't tell."""
    try:
        with (root / "proc" / "stat").open("rb") as file:
            user, nice, system, _idle, _wait, *rest = map(int, file.readline().split()[1:9])
        return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
