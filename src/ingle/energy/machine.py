"""This machine's CPU, as far as the energy model needs it."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from ingle.energy.table import Cpu, find

_ARM_PARTS = {"0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2",
              "0xd4f": "Neoverse-V2", "0xd84": "Neoverse-V3", "0xd8e": "Neoverse-N3"}  # fmt: skip
"""Names of Arm's own parts, by `CPU part` in /proc/cpuinfo."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPU and its hardware threads."""

    name: str
    """The CPU's own name."""
    cpu: Cpu
    """The row of the table."""
    cores: float
    """Physical cores of this machine, as far as can be known."""
    share: tuple[float, float, float]
    """Share of a core that a busy hardware thread uses: nominal, low, high."""
    virtual: bool
    """Whether it runs under a hypervisor."""


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
