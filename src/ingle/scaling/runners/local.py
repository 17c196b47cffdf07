"""This machine: one process a core, each with one thread (two threads in one training are slower than two trainings)."""

from collections.abc import Callable, Sequence

from ingle.core.process import usable_cores
from ingle.scaling.dealing import Hear, Job, WorkerProcess, deal

WORDS = "on this machine, one process a core"


def run_jobs(jobs: Sequence[Job], workers: int, hear: Hear, stopped: Callable[[], bool], address: str = "") -> None:
    """Do all jobs with so many processes at a time; 0 = one a core. `address` is for other runners.

    Raises the first fault of a job, and Interrupted when `stopped` says so; see scaling/dealing.py.
    """
    deal(jobs, workers or usable_cores(), WorkerProcess, hear, stopped)
