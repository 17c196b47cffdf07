"""The energy meter: this process's energy between two readings, from the most trustworthy source there is.

CPU   RAPL's counters; else a discharging battery; else the model
GPU   NVML's counters, for the GPUs that the process computes on; where these can't be read, the source says so

Counters count the whole machine. This process gets its share of all processes' CPU-seconds, and `high` is all of it. Times count only while
the machine is awake. Counters may restart after a sleep, so such a window is left to the model.
"""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ingle.core.energy import MODEL, NOTHING, Energy

# The present power of a laptop's battery, under /sys/class/power_supply: it supplies the whole machine, its screen included.


BATTERY_FOLDER = Path("sys/class/power_supply")


@dataclass(frozen=True, slots=True)
class Batteries:
    """All batteries of this machine."""

    folders: tuple[Path, ...]

    def watts(self) -> float | None:
        """Return their power together; None while none of them discharges, or where they don't say."""
        powers = [_watts(folder) for folder in self.folders]
        used = [value for value in powers if value is not None]
        return sum(used) if used else None


def find_batteries(root: Path = Path("/")) -> Batteries:
    """Return the batteries under this root."""
    try:
        folders = sorted((root / BATTERY_FOLDER).iterdir())
    except OSError:
        folders = []
    return Batteries(tuple(folder for folder in folders if _text(folder / "type") == "Battery" and _text(folder / "scope") != "Device"))


def _watts(folder: Path) -> float | None:
    if _text(folder / "status") != "Discharging":
        return None
    power = _number(folder / "power_now")
    if power is not None:
        return abs(power) / 1e6
    current, voltage = _number(folder / "current_now"), _number(folder / "voltage_now")
    return None if current is None or voltage is None else abs(current) * voltage / 1e12  # µA × µV


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


# NVIDIA's GPU counters, where the optional `pynvml` (package nvidia-ml-py) is installed.


class Gpus:
    """The GPUs that a program computes on. Volta and later count millijoules since the driver was loaded."""

    def __init__(self, uuids: Sequence[str], library: Any = None) -> None:
        """`uuids`: as the driver writes them, `GPU-…`. `library`: a substitute for `pynvml`; None = the installed one."""
        self.wanted = tuple(uuids)
        self._library = library if library is not None or not uuids else _installed()
        self._handles: list[Any] = []
        if self._library is None or not uuids:
            return
        with contextlib.suppress(Exception):  # its errors are its own classes: whatever it says, we then have no counter
            self._library.nvmlInit()
            handles = [self._library.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
            for handle in handles:
                self._library.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._handles = handles

    @property
    def readable(self) -> bool:
        """Whether all of them can be read."""
        return len(self._handles) == len(self.wanted) > 0

    def read(self) -> tuple[int, ...] | None:
        """Return the counters in mJ; None without GPUs, or where they can't be read."""
        if not self.readable:
            return None
        try:
            return tuple(int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles)
        except Exception:  # see above
            return None


def joules(first: Sequence[int], last: Sequence[int]) -> float | None:
    """Return the joules between two readings; None if the driver was reloaded meanwhile."""
    steps = [after - before for before, after in zip(first, last, strict=True)]
    return None if min(steps) < 0 else sum(steps) / 1e3


def _installed() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


# The processor's energy counters (RAPL), as Linux shows them under /sys/class/powercap.
# A counter holds microjoules, and restarts at `max_energy_range_uj`. Since 2020 only the administrator may read it, because programs could
# infer others' secrets from it (CVE-2020-8694); `CURE` says how an owner allows it.


RAPL_FOLDER = Path("sys/class/powercap")
# More than any machine takes. A window in which this power could overflow a counter twice is ignored.
MOST_WATTS = 2000.0
CURE = (
    "To read them until the next restart: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj; "
    "for good, put "
    'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj" into /etc/udev/rules.d/70-rapl.rules. '
    "Don't do this on a machine that you share with strangers: such counters can leak secrets (CVE-2020-8694)."
)


@dataclass(frozen=True, slots=True)
class Domain:
    """One counter."""

    name: str  # the counter's own name: `package-0`, `dram`
    path: Path  # file of the counter
    range_uj: int  # the value at which it restarts


@dataclass(frozen=True, slots=True)
class Rapl:
    """The counters that together cover the CPU and, where there is one for it, the memory."""

    domains: tuple[Domain, ...]
    state: Literal["readable", "locked", "none"]

    @property
    def covers_memory(self) -> bool:
        """Whether the memory is counted too."""
        return any(domain.name == "dram" for domain in self.domains)

    def read(self) -> tuple[int, ...] | None:
        """Return the counters in µJ; None if they can't be read."""
        if self.state != "readable":
            return None
        try:
            return tuple(int(domain.path.read_text("ascii")) for domain in self.domains)
        except (OSError, ValueError):
            return None

    def joules(self, first: Sequence[int], last: Sequence[int], elapsed_s: float) -> float | None:
        """Return the joules between two readings; None where a counter may have restarted more than once."""
        microjoules = 0
        for domain, before, after in zip(self.domains, first, last, strict=True):
            if elapsed_s * MOST_WATTS * 1e6 > domain.range_uj:
                return None
            microjoules += after - before if after >= before else after - before + domain.range_uj
        return microjoules / 1e6


def find_rapl(root: Path = Path("/")) -> Rapl:
    """Return the counters under this root. `psys` and the MMIO copies count the same joules again, `core` and `uncore` are parts of the
    package."""
    domains, locked = [], False
    try:
        folders = sorted((root / RAPL_FOLDER).glob("intel-rapl:*"))
    except OSError:
        folders = []
    for folder in folders:
        try:
            name = (folder / "name").read_text("ascii").strip()
            if not (name.startswith("package") or name == "dram"):
                continue
            domain = Domain(name, folder / "energy_uj", int((folder / "max_energy_range_uj").read_text("ascii")))
            int(domain.path.read_text("ascii"))
        except PermissionError:
            locked = True
            continue
        except (OSError, ValueError):
            continue
        domains.append(domain)
    if locked or not any(domain.name.startswith("package") for domain in domains):
        return Rapl((), "locked" if locked else "none")
    return Rapl(tuple(domains), "readable")


# Watts per busy core by CPU family: the energy model's data for machines whose counters can't be read.
# A row holds what one physical core at full load adds (`watts`, with bounds) and its part of what runs anyway (`idle_w`).
#     CCF  Cloud Carbon Footprint, coefficients of 2026-03 (Apache-2.0), from SPECpower_ssj2008: watts of whole servers at full load and
#          idle, per hardware thread. Here: twice that, for the two threads of a core; `watts` = full load − idle. The low bound is half
#          of it; the high one three times, because SPEC's servers are chosen for efficiency and run all cores at low clocks: the RAPL
#          counters of an 8-core EPYC 8024P gave 6 W per core when all were busy, and 18 W when one was (CodeCarbon's load profiles,
#          2025-01).
#     CC   CodeCarbon's load profiles of 2025-01 (MIT): RAPL package watts over busy cores. Bounds: all cores busy, few cores busy.
#     TDP  The makers' own figures over the number of cores, from the most frugal part to the fastest of the family; of AMD's desktop
#          parts the package limit, 1.35 times the TDP. Rows of CCF, of the Pi 4 (6.3 W when busy, by others) and of the Mac mini (Apple:
#          7 W idle, 39 W at most) were held against a second publication; rows of TDP were not.
#


CCF, CC, TDP = "Cloud Carbon Footprint, from SPECpower", "CodeCarbon load profiles, RAPL", "makers' TDP per core"
# Watts per GB in use: nominal, low, high. CodeCarbon (2021): 3 W for 8 GB; CCF (2021): 0.39; bounds: self-refresh, busy server DIMMs.
MEMORY_W_PER_GB = (0.375, 0.1, 0.6)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The figures of a CPU family."""

    name: str
    watts: float  # added by one busy core
    low: float
    high: float
    idle_w: float  # per core, busy or not
    source: str
    year: int
    known: bool = True  # false for the row of unknown CPUs


UNKNOWN = Cpu("unknown CPU", 6.0, 0.8, 30.0, 1.0, "from a Raspberry Pi's core to a fast desktop's", 2026, known=False)
Vendor = Literal["AuthenticAMD", "GenuineIntel", "arm", "apple"]


@dataclass(frozen=True, slots=True)
class TableRule:
    """The CPUs of a row: every given field must fit."""

    cpu: Cpu
    vendor: Vendor
    family: int | None = None
    models: frozenset[int] = frozenset()  # CPUID models; empty = any
    steppings: frozenset[int] = frozenset()  # empty = any
    words: tuple[str, ...] = ()  # one of these must be in the model's name; empty = any name

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


# This machine's CPU, as far as the energy model needs it.


# Names of Arm's own parts, by `CPU part` in /proc/cpuinfo.
_ARM_PARTS = {"0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2",
              "0xd4f": "Neoverse-V2", "0xd84": "Neoverse-V3", "0xd8e": "Neoverse-N3"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPU and its hardware threads."""

    name: str  # the CPU's own name
    cpu: Cpu  # the row of the table
    cores: float  # physical cores of this machine, as far as can be known
    share: tuple[float, float, float]  # share of a core that a busy hardware thread uses: nominal, low, high
    virtual: bool  # whether it runs under a hypervisor


def find_machine(root: Path = Path("/")) -> Machine:
    """Return this machine. `root`: the folder that holds `proc`."""
    try:
        text = (root / "proc" / "cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return _elsewhere()
    processors = [_fields(block) for block in text.split("\n\n") if "processor" in block]
    first = processors[0] if processors else {}
    threads, virtual = max(1, len(processors)), "hypervisor" in first.get("flags", "").split()
    siblings, cores = _whole(first.get("siblings")), _whole(first.get("cpu cores"))
    per_core = siblings / cores if siblings and cores else 1.0
    vendor, name = first.get("vendor_id", ""), first.get("model name", "")
    if not vendor:
        vendor, name = "arm", _ARM_PARTS.get(first.get("CPU part", ""), name or first.get("CPU part", ""))
    family, model, stepping = (_whole(first.get(key)) or 0 for key in ("cpu family", "model", "stepping"))
    # Two threads of a core take hardly more than one alone; what a hypervisor calls a core is often one such thread.
    share = (0.6, 0.5, 1.0) if per_core > 1 else (0.75, 0.5, 1.0) if virtual else (1.0, 1.0, 1.0)
    return Machine(name or "unknown", find(vendor, family, model, stepping, name), threads / per_core, share, virtual)


def _elsewhere() -> Machine:
    """Return the machine of a system without /proc."""
    name = platform.processor() or platform.machine()
    vendor = "apple" if sys.platform == "darwin" and platform.machine() == "arm64" else ""
    return Machine(name, find(vendor, 0, 0, 0, name), float(os.cpu_count() or 1), (1.0, 0.5, 1.0), virtual=False)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


# The energy model, for joules that nothing counts: CPU-seconds × watts per busy core, a share of idle power, and the memory.
#     busy    CPU-seconds of this process × what a busy core adds
#     idle    nominal: the same CPU-seconds × a core's idle watts (who uses a core pays for its rest); low: nothing; high: all cores, all
#             the time
#     memory  seconds × resident GB × watts per GB
# Not in it: the screen, disks, fans, the power supply's loss and the data centre's cooling.


UNKNOWN_CPU = f"{MODEL}, unknown CPU"


def estimate(machine: Machine, cpu_s: float, elapsed_s: float, resident_bytes: int) -> Energy:
    """Return the energy of a process that used so many CPU-seconds within so many seconds."""
    cpu, (share, least, most) = machine.cpu, machine.share
    busy = Energy(cpu_s * cpu.watts * share, cpu_s * cpu.low * least, cpu_s * cpu.high * most, source_of(machine))
    idle = Energy(cpu_s * cpu.idle_w * share, 0.0, max(elapsed_s * machine.cores, cpu_s) * cpu.idle_w, busy.source)
    return busy + idle + memory(machine, elapsed_s, resident_bytes)


def memory(machine: Machine, elapsed_s: float, resident_bytes: int) -> Energy:
    """Return the memory's part."""
    gb_s = elapsed_s * resident_bytes / 1e9
    nominal, low, high = MEMORY_W_PER_GB
    return Energy(gb_s * nominal, gb_s * low, gb_s * high, source_of(machine))


def source_of(machine: Machine) -> str:
    """Return the model's name as a source on this machine."""
    return MODEL if machine.cpu.known else UNKNOWN_CPU


_SHARE_S = 0.2  # least seconds over which the share among processes is measured: the system counts in hundredths
_ASLEEP_S = 0.25  # a longer gap between the clocks means that the machine slept
_RESIDENT_S = 1.0


def _boot_s() -> float:
    """Return seconds since the start, sleep included; where the system doesn't tell, as if it never slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@dataclass(frozen=True, slots=True)
class Clocks:
    awake_s: Callable[[], float] = time.monotonic  # stops while the machine sleeps
    boot_s: Callable[[], float] = _boot_s  # goes on while the machine sleeps
    cpu_s: Callable[[], float] = time.process_time  # CPU-seconds of all threads of this process


@dataclass(frozen=True, slots=True)
class MeterReading:
    """All counters at one moment."""

    awake_s: float
    boot_s: float
    cpu_s: float
    resident_bytes: int
    share: float  # this process's share of the CPU-seconds that all processes used lately
    rapl_uj: tuple[int, ...] | None
    battery_w: float | None
    gpu_mj: tuple[int, ...] | None


@dataclass
class Meter:
    """Reads counters, and returns the energy between two readings. Threads may share it: a race costs a stale share, not a joule."""

    root: Path = Path("/")  # the folder that holds `sys` and `proc`
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
        gpu_j = None if first.gpu_mj is None or last.gpu_mj is None else joules(first.gpu_mj, last.gpu_mj)
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
        self.total = NOTHING  # the energy up to the last reading

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


# Compare the energy model with hardware counters, where there are some, on the same work.


WINDOW_S = 1.0  # seconds of one reading; a counter may be some milliseconds late


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
    cure = "" if cpu.known else "The interval is wide for that reason; a row for it may be added to energy/meter.py."
    return [("rapl", *rapl), ("battery", battery, ""), ("model", row, cure)]


def _products() -> Callable[[], None]:
    import numpy as np

    matrix = np.ones((768, 768), np.float32)

    def work() -> None:
        np.matmul(matrix, matrix)

    return work
