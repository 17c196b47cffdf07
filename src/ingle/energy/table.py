"""Watts per busy core by CPU family: the energy model's data for machines whose counters can't be read.

A row holds what one physical core at full load adds (`watts`, with bounds) and its part of what runs anyway (`idle_w`).

CCF  Cloud Carbon Footprint, coefficients of 2026-03 (Apache-2.0), from SPECpower_ssj2008: watts of whole servers at full load and idle,
     per hardware thread. Here: twice that, for the two threads of a core; `watts` = full load − idle. The low bound is half of it; the
     high one three times, because SPEC's servers are chosen for efficiency and run all cores at low clocks: the RAPL counters of an
     8-core EPYC 8024P gave 6 W per core when all were busy, and 18 W when one was (CodeCarbon's load profiles, 2025-01).
CC   CodeCarbon's load profiles of 2025-01 (MIT): RAPL package watts over busy cores. Bounds: all cores busy, few cores busy.
TDP  The makers' own figures over the number of cores, from the most frugal part to the fastest of the family; of AMD's desktop parts the
     package limit, 1.35 times the TDP. Rows of CCF, of the Pi 4 (6.3 W when busy, by others) and of the Mac mini (Apple: 7 W idle, 39 W
     at most) were held against a second publication; rows of TDP were not.
"""

from dataclasses import dataclass
from typing import Literal

CCF, CC, TDP = "Cloud Carbon Footprint, from SPECpower", "CodeCarbon load profiles, RAPL", "makers' TDP per core"
MEMORY_W_PER_GB = (0.375, 0.1, 0.6)
"""Watts per GB in use: nominal, low, high. CodeCarbon (2021): 3 W for 8 GB; CCF (2021): 0.39; bounds: self-refresh, busy server DIMMs."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """The figures of a CPU family."""

    name: str
    watts: float
    """Added by one busy core."""
    low: float
    high: float
    idle_w: float
    """Per core, busy or not."""
    source: str
    year: int
    known: bool = True
    """False for the row of unknown CPUs."""


UNKNOWN = Cpu("unknown CPU", 6.0, 0.8, 30.0, 1.0, "from a Raspberry Pi's core to a fast desktop's", 2026, known=False)
Vendor = Literal["AuthenticAMD", "GenuineIntel", "arm", "apple"]


@dataclass(frozen=True, slots=True)
class TableRule:
    """The CPUs of a row: every given field must fit."""

    cpu: Cpu
    vendor: Vendor
    family: int | None = None
    models: frozenset[int] = frozenset()
    """CPUID models; empty = any."""
    steppings: frozenset[int] = frozenset()
    """Empty = any."""
    words: tuple[str, ...] = ()
    """One of these must be in the model's name; empty = any name."""

    def fits(self, vendor: str, family: int, model: int, stepping: int, name: str) -> bool:
        """Return whether this CPU belongs to the row."""
        return (
            vendor == self.vendor
            and (self.family is None or family == self.family)
            and (not self.models or model in self.models)
            and (not self.steppings or stepping in self.steppings)
            and (not self.words or any(word in name for word in self.words))
        )


def _server(name: str, idle: float, full: float) -> Cpu:
    """Make a row from CCF's table, which is per thread."""
    added = 2 * (full - idle)
    return Cpu(name, round(added, 2), round(added / 2, 2), round(3 * added, 2), round(2 * idle, 2), CCF, 2026)


def _models(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


RULES = (
    # AMD, by CPUID family: 23 = Zen, Zen 2; 25 = Zen 3, Zen 4; 26 = Zen 5.
    TableRule(_server("AMD EPYC 1st generation (Naples)", 0.847, 2.604), "AuthenticAMD", 23, _models(1), words=("EPYC",)),
    TableRule(_server("AMD EPYC 2nd generation (Rome)", 0.474, 1.693), "AuthenticAMD", 23, _models(49), words=("EPYC",)),
    TableRule(_server("AMD EPYC 3rd generation (Milan)", 0.456, 1.957), "AuthenticAMD", 25, _models(1), words=("EPYC",)),
    TableRule(_server("AMD EPYC 4th generation (Genoa)", 0.739, 2.282), "AuthenticAMD", 25, _models(17, 160), words=("EPYC",)),
    TableRule(Cpu("AMD EPYC 5th generation (Turin)", 4.0, 1.5, 20.0, 1.5, TDP, 2024), "AuthenticAMD", 26, _models(2, 17), words=("EPYC",)),
    TableRule(Cpu("AMD Zen (Threadripper 1950X)", 9.2, 5.0, 15.0, 0.1, CC, 2025), "AuthenticAMD", 23, _models(1, 8, 17, 24)),
    TableRule(Cpu("AMD Ryzen, Zen 2 (4800U – 3700X)", 6.0, 1.9, 12.0, 0.8, TDP, 2020), "AuthenticAMD", 23),
    TableRule(Cpu("AMD Ryzen, Zen 3 and 4 (5800U – 7700X)", 6.5, 1.9, 18.0, 0.8, TDP, 2022), "AuthenticAMD", 25),
    TableRule(Cpu("AMD Ryzen, Zen 5 (AI 9 365 – 9700X)", 6.5, 1.9, 18.0, 0.8, TDP, 2024), "AuthenticAMD", 26),
    # Intel, family 6.
    TableRule(Cpu("Intel Xeon, Haswell (E5-2620 v3)", 5.4, 3.0, 8.2, 0.1, CC, 2025), "GenuineIntel", 6, _models(63), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Broadwell", 0.713, 3.685), "GenuineIntel", 6, _models(79, 86), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Skylake", 0.613, 4.104), "GenuineIntel", 6, _models(85), frozenset(range(5)), ("Xeon",)),
    TableRule(_server("Intel Xeon, Cascade Lake", 0.690, 4.063), "GenuineIntel", 6, _models(85), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Ice Lake", 0.767, 3.758), "GenuineIntel", 6, _models(106, 108), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Sapphire Rapids", 1.036, 4.160), "GenuineIntel", 6, _models(143), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Emerald Rapids", 0.814, 4.482), "GenuineIntel", 6, _models(207), words=("Xeon",)),
    TableRule(_server("Intel Xeon, Granite Rapids", 0.582, 2.527), "GenuineIntel", 6, _models(173, 174), words=("Xeon",)),
    TableRule(
        Cpu("Intel Core, Skylake to Rocket Lake (i5-8250U – i7-7700K)", 9.0, 3.7, 23.0, 0.8, TDP, 2020), "GenuineIntel", 6,
        _models(78, 94, 142, 158, 165, 166, 125, 126, 140, 141, 167), words=("Core",),
    ),
    TableRule(
        Cpu("Intel Core, Alder Lake and later (i7-1355U – i5-13600K)", 6.0, 1.5, 13.0, 0.8, TDP, 2023), "GenuineIntel", 6,
        _models(151, 154, 183, 186, 191, 170, 172, 189, 197, 198), words=("Core",),
    ),
    # Arm, by name: Linux gives implementer and part instead (see `cpu.py`).
    TableRule(Cpu("Arm Neoverse (Ampere Altra: 210 W for 80 cores)", 2.2, 1.0, 5.0, 0.5, TDP, 2020), "arm", words=("Neoverse",)),
    TableRule(Cpu("Raspberry Pi 4 (2.7 W idle, 6.4 W busy)", 0.93, 0.6, 1.6, 0.68, "Pi Dramble, at the plug", 2019), "arm", words=("A72",)),
    TableRule(Cpu("Raspberry Pi 5", 1.3, 0.6, 2.6, 0.75, "scaled from the Pi 4 by their supplies' ratings", 2023), "arm", words=("A76",)),
    TableRule(Cpu("Apple M1 to M4", 4.0, 1.0, 7.0, 0.5, "AnandTech, Mac mini M1 at the plug", 2020), "apple"),
)  # fmt: skip


def find(vendor: str, family: int, model: int, stepping: int, name: str) -> Cpu:
    """Return the first row that fits, or `UNKNOWN`."""
    return next((rule.cpu for rule in RULES if rule.fits(vendor, family, model, stepping, name)), UNKNOWN)
