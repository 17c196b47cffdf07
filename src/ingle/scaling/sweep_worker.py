"""The process that trains: reads one job from standard input, and writes messages to standard output until it is done.

`python -P -m ingle.scaling.sweep_worker`. It computes with one thread, at low priority. When its standard input ends, its driver is
gone: it writes a checkpoint and ends, too.

A job is {"call": "climb", "runs", "prepared", "work"}, which is answered by `step`, `say` and `run` messages; or {"call": "time", "runs",
"prepared"}, which is answered by one `time` message a run. The last message is `done` or `fault`.
"""

import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from ingle.core.apart import read_message, write_message
from ingle.core.config import from_table
from ingle.core.energy import Energy
from ingle.core.errors import CheckpointError, IngleError, fault_of
from ingle.core.process import file_lock

TIMED_STEPS = 6
_TOLD_EVERY_S = 1.0
_NICE = 5
Send = Callable[[dict[str, Any], bytes], None]


def main() -> None:
    """Do one job."""
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
    job, _ = read_message(sys.stdin.buffer)
    _end_with_driver(sys.stdin.buffer)
    with suppress(BrokenPipeError):
        perform(job, lambda header, data: write_message(messages, header, data))


def perform(job: dict[str, Any], send: Send) -> None:
    """Do a job in this process, and send its messages."""
    import torch

    torch.set_num_threads(1)
    try:
        _CALLS[job["call"]](job, send)
    except IngleError as error:
        send({"kind": "fault", "fault": fault_of(error)}, b"")
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"[:300]
        fault = CheckpointError("a run of the sweep", "failed", text, "Run the same command to try again.")
        send({"kind": "fault", "fault": fault_of(fault)}, b"")
    else:
        send({"kind": "done"}, b"")


def _climb(job: dict[str, Any], send: Send) -> None:
    from ingle.scaling.climb import FinishedRun, climb
    from ingle.scaling.sweep_settings import RunSettings
    from ingle.scratch.text_sources import find_prepared
    from ingle.train.loop_settings import TrainProgress

    told = {"at": 0.0}

    def finished(one: FinishedRun) -> None:
        send({"kind": "run", "report": one.report}, one.bits.tobytes())

    def stepped(run: RunSettings, now: TrainProgress) -> None:
        if now.step == now.steps or time.monotonic() - told["at"] > _TOLD_EVERY_S:
            told["at"] = time.monotonic()
            send({"kind": "step", "key": run.key, "label": run.label, "step": now.step, "steps": now.steps, "loss": now.loss}, b"")

    runs = [from_table(RunSettings, table) for table in job["runs"]]
    work = Path(job["work"])
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(work / f"{runs[0].trunk}.lock"):  # a worker whose driver was killed may still be writing its checkpoint
        climb(runs, find_prepared(Path(job["prepared"])), work, finished, stepped, lambda text: send({"kind": "say", "text": text}, b""))


def _time(job: dict[str, Any], send: Send) -> None:
    from ingle.scaling.sweep_settings import RunSettings
    from ingle.scratch.text_sources import find_prepared

    prepared = find_prepared(Path(job["prepared"]))
    for table in job["runs"]:
        run = from_table(RunSettings, table)
        seconds, wall, energy = _timed(run, prepared)
        message = {"kind": "time", "size": run.size, "seconds_per_token": seconds, "wall_per_token": wall, "energy": energy.table()}
        send(message, b"")


def _timed(run: Any, prepared: Any) -> tuple[float, float, Energy]:
    """Seconds of computing a token, and seconds by the clock, by the median of a few steps; and the energy of one token."""
    from ingle.energy.meter import Span, open_meter
    from ingle.scaling.climb import new_training
    from ingle.train.loop_settings import TrainWatch

    marks, used, folder = list[tuple[float, float]](), list[Energy](), Path(tempfile.mkdtemp(prefix="ingle-timing-"))
    span = Span(open_meter(()))
    few = replace(run, train=replace(run.train, max_steps=TIMED_STEPS))

    def stepped(_: Any) -> None:
        marks.append((time.process_time(), time.perf_counter()))
        used.append(span.end_of_piece())

    try:
        new_training(few, prepared, folder, TrainWatch(stepped))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tokens = run.train.batch_tokens * run.train.accumulate
    own, wall = (statistics.median(later[i] - earlier[i] for earlier, later in pairwise(marks[1:])) / tokens for i in (0, 1))
    return own, wall, sum(used[3:], used[2]).scaled(1 / (tokens * len(used[2:])))


def _end_with_driver(stream: IO[bytes]) -> None:
    """When the driver's end of the pipe closes, ask this process to stop after the current step."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            stream.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="driver", daemon=True).start()


_CALLS: dict[str, Callable[[dict[str, Any], Send], None]] = {"climb": _climb, "time": _time}

if __name__ == "__main__":
    main()
