"""Cost of a sweep: a few steps of each size are timed, on as many cores as will train, and all runs are reckoned from that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.core.config import to_table
from ingle.core.energy import NOTHING, Energy, total
from ingle.scaling.budget import Cost, Prices
from ingle.scaling.prepared import Prepared
from ingle.scaling.runners.local import run_jobs
from ingle.scaling.runs import RunSettings, climb_flops, climbs_of

START_S = 4.0
"""Seconds until a process trains: PyTorch's import, and the text."""
READ_SPEED = 2.5
"""Held-out text is read in float32 so many times as fast as text is learnt from in bf16."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of a token in training at one size."""

    seconds: float
    """Of computing, with one thread: what a quiet machine takes."""
    energy: Energy
    wall: float = 0.0
    """Seconds by the clock when it was timed, beside whatever else ran; 0 where nobody looked."""

    @property
    def busy(self) -> float:
        """Times as long as on a quiet machine, when it was timed."""
        return max(1.0, self.wall / self.seconds)


def measure_speeds(prepared: Prepared, runs: Sequence[RunSettings], workers: int) -> dict[str, Speed]:
    """Time a few steps of each size among these runs, on as many cores as will train. Raises TrainError, Interrupted."""
    sizes = list({run.size: run for run in runs}.values())
    heard: dict[str, list[Speed]] = {run.size: [] for run in sizes}

    def hear(_number: int, header: dict[str, Any], _data: bytes) -> None:
        if header["kind"] == "time":
            heard[header["size"]].append(Speed(header["seconds_per_token"], Energy(**header["energy"]), header["wall_per_token"]))

    job = {"call": "time", "runs": to_table(sizes), "prepared": prepared.folder}
    run_jobs([job] * workers, workers, hear, lambda: False)
    return {size: _mean(speeds) for size, speeds in heard.items()}


def cost_of(runs: Sequence[RunSettings], prepared: Prepared, speeds: Mapping[str, Speed], workers: int, prices: Prices) -> Cost:
    """Reckon what these runs cost: climbs go to the workers, the longest first, as the sweep deals them out."""
    loads = [0.0] * workers
    energy, flops = NOTHING, 0.0
    for climb in climbs_of(runs):
        seconds, used = _climb_cost(climb, prepared, speeds[climb[0].size])
        least = min(range(workers), key=lambda i: loads[i])
        loads[least] += seconds
        energy, flops = energy + used, flops + climb_flops(climb)
    minutes, core_minutes = max(loads) / 60, sum(loads) / 60
    return Cost(minutes, energy, prices.of(minutes / 60, energy), flops, core_minutes)


def _climb_cost(climb: Sequence[RunSettings], prepared: Prepared, speed: Speed) -> tuple[float, Energy]:
    learnt = climb_flops(climb) / (6 * climb[0].parameters)
    read = len(climb) * (prepared.held_out_bytes / 3) / READ_SPEED
    seconds = START_S + (learnt + read) * speed.seconds
    return seconds, speed.energy.scaled(learnt + read)


def _mean(speeds: Sequence[Speed]) -> Speed:
    energy = total(speed.energy for speed in speeds).scaled(1 / len(speeds))
    seconds, wall = (sum(getattr(speed, name) for speed in speeds) / len(speeds) for name in ("seconds", "wall"))
    return Speed(seconds, energy, wall)
