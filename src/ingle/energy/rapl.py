"""The processor's energy counters (RAPL), as Linux shows them under /sys/class/powercap.

A counter holds microjoules, and restarts at `max_energy_range_uj`. Since 2020 only the administrator may read it, because programs could
infer others' secrets from it (CVE-2020-8694); `CURE` says how an owner allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path("sys/class/powercap")
MOST_WATTS = 2000.0
"""More than any machine takes. A window in which this power could overflow a counter twice is ignored."""
CURE = (
    "To read them until the next restart: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj; "
    "for good, put "
    'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj" into /etc/udev/rules.d/70-rapl.rules. '
    "Don't do this on a machine that you share with strangers: such counters can leak secrets (CVE-2020-8694)."
)


@dataclass(frozen=True, slots=True)
class Domain:
    """One counter."""

    name: str
    """The counter's own name: `package-0`, `dram`."""
    path: Path
    """File of the counter."""
    range_uj: int
    """The value at which it restarts."""


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
