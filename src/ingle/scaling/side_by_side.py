"""Cost of a token with a lever and without, timed in one sitting: a machine is busier in one hour than in the next."""

import statistics
from collections.abc import Sequence
from typing import Any

from ingle.core.config import to_table
from ingle.scaling.prepared import Prepared
from ingle.scaling.runners.local import run_jobs
from ingle.scaling.runs import RunSettings

TIMES = 3
"""Times that each run is timed, in turn with the others."""
Timed = tuple[RunSettings, Prepared]


def relative_costs(without: Timed, others: Sequence[Timed]) -> list[tuple[float, float]]:
    """Return (seconds, joules) of a token of each other run, as multiples of those of the run without a lever. Raises TrainError."""
    texts = dict[str, list[RunSettings]]()
    for run, prepared in (without, *others):
        texts.setdefault(prepared.folder, []).append(run)
    orders = list(texts.values())
    heard: dict[str, list[tuple[float, float]]] = {}
    counts = [0] * len(orders)

    def hear(number: int, header: dict[str, Any], _data: bytes) -> None:
        if header["kind"] == "time":
            run = orders[number][counts[number] % len(orders[number])]
            counts[number] += 1
            heard.setdefault(run.key, []).append((header["seconds_per_token"], header["energy"]["joules"]))

    jobs = [{"call": "time", "runs": to_table(runs * TIMES), "prepared": text} for text, runs in texts.items()]
    run_jobs(jobs, 1, hear, lambda: False)
    seconds, joules = ({key: statistics.median(value[i] for value in values) for key, values in heard.items()} for i in (0, 1))
    key = without[0].key
    return [(seconds[run.key] / seconds[key], joules[run.key] / joules[key] if joules[key] else 1.0) for run, _ in others]
