"""The processor's own counters (RAPL), as Linux shows them under /sys/class/powercap.

A counter holds microjoules, and begins anew at `max_energy_range_uj`. Since 2020 only the administrator may read it, because programs could
read secrets of others off it (CVE-2020-8694); `CURE` says how an owner allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path("sys/class/powercap")
MOST_WATTS = 2000.0
"""No machine of ours takes more: a window in which that could fill a counter twice says nothing."""
CURE = (
    "Let everybody on this machine read them, until it starts again: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj; "
    "for good: put "
    'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj" into /etc/udev/rules.d/70-rapl.rules. '
    "On a machine that strangers share, don't: such counters have given secrets away (CVE-2020-8694)."
)


@dataclass(frozen=True, slots=True)
class Domain:
    """One counter."""

    name: str
    """As it calls itself: `package-0`, `dram`."""
    path: Path
    """Of the counter."""
    range_uj: int
    """Where it begins anew."""


@dataclass(frozen=True, slots=True)
class Rapl:
    """The counters that together make the CPU and, where there is one for it, the memory."""

    domains: tuple[Domain, ...]
    state: Literal["readable", "locked", "none"]

    @property
    def covers_memory(self) -> bool:
        """Whether the memory is counted too."""
        return any(domain.name == "dram" for domain in self.domains)

    def read(self) -> tuple[int, ...] | None:
        """The counters in µJ now; None if they can't be read."""
        if self.state != "readable":
            return None
        try:
            return tuple(int(domain.path.read_text("ascii")) for domain in self.domains)
        except (OSError, ValueError):
            return None

    def joules(self, first: Sequence[int], last: Sequence[int], elapsed_s: float) -> float | None:
        """What was counted between two readings; None where a counter may have begun anew more than once."""
        found = 0
        for domain, before, after in zip(self.domains, first, last, strict=True):
            if elapsed_s * MOST_WATTS * 1e6 > domain.range_uj:
                return None
            found += after - before if after >= before else after - before + domain.range_uj
        return found / 1e6


def find_rapl(root: Path = Path("/")) -> Rapl:
    """The counters under this root. `psys` and the MMIO twins count the same joules again, `core` and `uncore` are parts of the package."""
    domains, locked = [], False
    try:
        folders = sorted((root / FOLDER).glob("intel-rapl:*"))
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
