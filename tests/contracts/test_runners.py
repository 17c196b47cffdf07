"""Every runner: the outcomes of runs made alone, a job's own error, and a sweep that is stopped goes on."""

import os
import signal
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import ingle.scaling.runners as folder
from ingle.core.errors import Interrupted, raised
from ingle.home.place import Home
from ingle.scaling.sweep import Sweep, jobs_of, run_sweep
from ingle.scaling.sweep_settings import outcomes
from ingle.scaling.sweep_worker import perform
from ingle.train.making import RunWatch
from tests.scaling.place import write_texts
from tests.scaling.ray_nodes import needs_ray
from tests.scaling.sweeps import alone, planned

pytestmark = pytest.mark.journey

NAMES = sorted(module.name for module in iter_modules(folder.__path__))
every = pytest.mark.parametrize("name", [pytest.param(name, marks=[needs_ray] * (name == "ray")) for name in NAMES])


def small_sweep(place: Path) -> tuple[Home, Sweep]:
    """Two climbs of two runs."""
    home = Home(place / "home")
    return home, planned(home, write_texts(place / "texts.jsonl", 900), more_seeds=0)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Outcomes of the small sweep's runs, each trained from its first step, by itself, in this process."""
    place = tmp_path_factory.mktemp("alone")
    _, sweep = small_sweep(place)
    return outcomes([alone(run, sweep.prepared, place / "work") for run in sweep.runs])


def test_the_runners_are_these() -> None:
    assert NAMES == ["local", "ray"]
    for name in NAMES:
        assert import_module(f"ingle.scaling.runners.{name}").WORDS


@every
def test_stopped_it_goes_on_and_ends_as_runs_made_alone(name: str, tmp_path: Path, expected: str) -> None:
    home, sweep = small_sweep(tmp_path)
    heard = list[tuple[int, dict[str, Any]]]()
    run_jobs = import_module(f"ingle.scaling.runners.{name}").run_jobs
    with pytest.raises(Interrupted, match="Run the same command to go on"):
        run_jobs(jobs_of(sweep, sweep.runs), 2, lambda number, header, _: heard.append((number, header)), lambda: len(heard) >= 2)
    assert not sweep.reports()
    before = {
        path.parent.parent.name: int(path.parent.name.removeprefix("step-")) for path in sweep.folder.glob("work/*/step-*/state.json")
    }
    assert max(before.values()) > 1, "no worker wrote a checkpoint"
    said = list[str]()
    reports = run_sweep(home, sweep, sweep.runs, name, 2, watch=RunWatch(say=said.append))
    assert outcomes(reports) == expected
    assert len([line for line in said if "bits/byte" in line]) == 4
    assert not [path for path in (sweep.folder / "work").iterdir() if path.is_dir() or path.suffix != ".lock"]


@every
def test_a_job_that_fails_is_raised_as_its_own_error(name: str, tmp_path: Path) -> None:
    _, sweep = small_sweep(tmp_path)
    job = jobs_of(sweep, sweep.runs[:1])[0]
    job["runs"] = [{**run, "train": {**run["train"], "precision": "fp7"}} for run in job["runs"]]
    faults = list[dict[str, Any]]()
    perform(job, lambda header, _: faults.append(header["fault"]))
    error = raised(faults[0])
    assert "precision" in str(error)
    with pytest.raises(type(error)) as caught:
        import_module(f"ingle.scaling.runners.{name}").run_jobs([job], 1, lambda *_: None, lambda: False)
    assert str(caught.value) == str(error)


@every
def test_of_a_lost_worker_only_what_is_not_finished_is_done_again(name: str, tmp_path: Path) -> None:
    """The process that trains is killed when the climb's longest run is finished: that run is not begun a second time."""
    _, sweep = small_sweep(tmp_path)
    [_, job] = jobs_of(sweep, sweep.runs)
    heard, killed = list[tuple[str, str]](), list[int]()

    def hear(_number: int, header: dict[str, Any], _data: bytes) -> None:
        heard.append((header["kind"], header["report"]["key"] if header["kind"] == "run" else header.get("key", "")))
        if header["kind"] == "run" and not killed:
            killed.extend(pids_at(sweep.folder / "work"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    import_module(f"ingle.scaling.runners.{name}").run_jobs([job], 1, hear, lambda: False)
    assert len(killed) == 1
    ended = [key for kind, key in heard if kind == "run"]
    assert len(ended) == len(set(ended)) == 2
    first = heard.index(("run", ended[0]))
    assert ("step", ended[0]) not in heard[first:]
    assert heard.count(("say", "")) == 1, "the loss is told, once"


def pids_at(folder: Path) -> list[int]:
    """Processes that hold a file of a folder open: workers hold the lock in their work folder."""
    found = set[int]()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found.add(int(link.parts[2]))
    return sorted(found)
