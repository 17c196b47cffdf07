"""Machines made of files: what `/sys` and `/proc` would show, and clocks that go as they are told."""

from dataclasses import dataclass, field
from pathlib import Path

from ingle.energy.meter import Clocks, Meter

EPYC = {"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "17", "model name": "AMD EPYC", "stepping": "1"}
RANGE_UJ = 262_143_328_850
TICKS = 100


@dataclass
class Fake:
    """One machine; times and counters only move when a test moves them."""

    root: Path
    awake_s: float = 1000.0
    asleep_s: float = 0.0
    cpu_s: float = 5.0
    busy_s: float = 50.0
    counters: dict[str, int] = field(default_factory=dict)

    def cpuinfo(self, fields: dict[str, str], processors: int = 2) -> "Fake":
        block = "".join(f"{key}\t: {value}\n" for key, value in fields.items())
        return self.put("proc/cpuinfo", "\n".join(f"processor\t: {i}\n{block}" for i in range(processors)) + "\n")

    def rapl(self, folder: str, name: str, uj: int = 0, range_uj: int = RANGE_UJ, kind: str = "intel-rapl") -> "Fake":
        at = f"sys/class/powercap/{kind}:{folder}"
        self.counters[folder] = uj
        self.put(f"{at}/name", name + "\n").put(f"{at}/max_energy_range_uj", f"{range_uj}\n")
        return self.put(f"{at}/energy_uj", f"{uj}\n")

    def battery(self, **files: str) -> "Fake":
        for name, text in {"type": "Battery", "status": "Discharging", **files}.items():
            self.put(f"sys/class/power_supply/BAT0/{name}", text + "\n")
        return self

    def resident(self, pages: int) -> "Fake":
        return self.put("proc/self/statm", f"{2 * pages} {pages} 3 4 0 5 0\n")

    def put(self, name: str, text: str) -> "Fake":
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def go(self, seconds: float, cpu_s: float = 0.0, others_s: float = 0.0, sleep_s: float = 0.0, **joules: float) -> None:
        """Time passes; counters move by `d0=joules` for the folder 0, `d0_0` for 0:0, and begin anew where they must."""
        self.awake_s += seconds
        self.asleep_s += sleep_s
        self.cpu_s += cpu_s
        self.busy_s += cpu_s + others_s
        self.stat()
        for name, value in joules.items():
            folder = name[1:].replace("_", ":")
            self.counters[folder] = (self.counters[folder] + round(value * 1e6)) % RANGE_UJ
            self.put(f"sys/class/powercap/intel-rapl:{folder}/energy_uj", f"{self.counters[folder]}\n")

    def stat(self) -> "Fake":
        return self.put("proc/stat", f"cpu  {round(self.busy_s * TICKS)} 0 0 999 5 0 0 0 0 0\ncpu0 1 2 3\n")

    def meter(self) -> Meter:
        self.stat()
        clocks = Clocks(lambda: self.awake_s, lambda: self.awake_s + self.asleep_s, lambda: self.cpu_s)
        return Meter(self.root, clocks)
