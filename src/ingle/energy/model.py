"""The energy model, for joules that nothing counts: CPU-seconds × watts per busy core, a share of idle power, and the memory.

busy    CPU-seconds of this process × what a busy core adds
idle    nominal: the same CPU-seconds × a core's idle watts (who uses a core pays for its rest); low: nothing; high: all cores, all the time
memory  seconds × resident GB × watts per GB

Not in it: the screen, disks, fans, the power supply's loss and the data centre's cooling.
"""

from ingle.core.energy import MODEL, Energy
from ingle.energy.machine import Machine
from ingle.energy.table import MEMORY_W_PER_GB

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
