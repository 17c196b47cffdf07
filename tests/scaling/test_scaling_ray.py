"""Sweeps on Ray: nodes that die, drivers that die, nodes with another Ingle, and nodes that see no folder of ours."""

import importlib.util
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingle.core.errors import ConfigError
from ingle.home.place import Home
from ingle.scaling.dealing import Messages
from ingle.scaling.runners import ray as runner
from ingle.scaling.sweep import Sweep, jobs_of, run_sweep
from ingle.scaling.sweep_settings import outcomes
from ingle.train.making import RunWatch
from tests.scaling.ray_nodes import add_node, needs_ray, ray_nodes
from tests.scaling.sweeps import alone, planned
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey

DRIVER = (
    "import sys; from pathlib import Path; from ingle.home.place import Home; from ingle.scaling.sweep import open_sweep, run_sweep\n"
    "home = Home(Path(sys.argv[1])); sweep = open_sweep(home, 'small'); run_sweep(home, sweep, sweep.runs, 'ray', 2)"
)
"""A driver with a cluster of its own."""


@pytest.fixture
def place(tmp_path: Path, long_texts: str) -> tuple[Home, Sweep]:
    """A home with a sweep of two climbs."""
    home = Home(tmp_path / "home")
    return home, planned(home, long_texts, more_seeds=0)


def processes_of(home: Home) -> list[str]:
    """Command lines of processes that have this home's variable."""
    found = list[str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"INGLE_TEST_MARK={home.root}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def start_driver(home: Home) -> "subprocess.Popen[bytes]":
    """A driver in a session of its own; all that it starts carries its mark."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(home.root)], env={**os.environ, "INGLE_TEST_MARK": str(home.root)}, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def until(there: Callable[[], bool], driver: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait for something to be true, as long as a driver is at work."""

    def true() -> bool:
        if there():
            return True
        assert driver is None or driver.poll() is None, driver.communicate()[1].decode()[-2000:]
        return False

    wait_until(true, "the sweep is so far", 300)


@needs_ray
def test_a_node_that_is_killed_half_way_changes_nothing(place: tuple[Home, Sweep], tmp_path: Path) -> None:
    """The second node dies when the first run is finished; both had been at work."""
    home, sweep = place
    with ray_nodes(1, 1) as (cluster, nodes):
        killed = list[Any]()

        def say(text: str) -> None:
            if "bits/byte" in text and not killed:
                killed.append(nodes[1])
                cluster.remove_node(nodes[1], allow_graceful=False)

        reports = run_sweep(home, sweep, sweep.runs, "ray", address=cluster.address, watch=RunWatch(say=say))
    assert killed
    assert outcomes(reports) == outcomes([alone(run, sweep.prepared, tmp_path / "alone") for run in sweep.runs])


@needs_ray
@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_nothing_running_and_the_next_goes_on(place: tuple[Home, Sweep], tmp_path: Path) -> None:
    home, sweep = place
    driver = start_driver(home)
    until((sweep.folder / "progress.json").exists, driver)
    assert processes_of(home)
    driver.kill()
    driver.communicate()
    until(lambda: not processes_of(home))
    second = start_driver(home)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said.decode()[-2000:]
    until(lambda: not processes_of(home))
    assert outcomes(sweep.reports()) == outcomes([alone(run, sweep.prepared, tmp_path / "alone") for run in sweep.runs])


@needs_ray
def test_ctrl_c_reaches_the_driver_alone_and_leaves_nothing_running(place: tuple[Home, Sweep]) -> None:
    home, sweep = place
    driver = start_driver(home)
    until((sweep.folder / "progress.json").exists, driver)
    assert listening(home) and all(address.startswith("127.") for address in listening(home)), listening(home)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    _, said = driver.communicate(timeout=PATIENCE_S)
    assert "Interrupted: the sweep was interrupted. Finished runs are kept." in said.decode()
    until(lambda: not processes_of(home))
    assert list(sweep.folder.glob("work/*/step-*/state.json"))


@needs_ray
def test_a_node_that_sees_no_folder_of_ours_gets_the_text(
    place: tuple[Home, Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The driver marks its folder with another name than the node looks for, so that the node believes itself elsewhere."""
    home, sweep = place
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setattr(runner, "MARK", "elsewhere.txt")
    with ray_nodes(0) as (cluster, _):
        add_node(cluster, 1, TMPDIR=str(there))
        reports = run_sweep(home, sweep, sweep.runs[:1], "ray", address=cluster.address)
    assert outcomes(reports) == outcomes([alone(sweep.runs[0], sweep.prepared, tmp_path / "alone")])
    assert not list(sweep.folder.glob("work/*"))
    assert not list(there.glob("ingle-text-*"))
    assert [path.suffix for path in there.glob("ingle-sweep-*/*")] == [".lock"]


@needs_ray
def test_a_node_with_another_ingle_is_refused(place: tuple[Home, Sweep], tmp_path: Path) -> None:
    home, sweep = place
    (tmp_path / "other" / "ingle").mkdir(parents=True)
    (tmp_path / "other" / "ingle" / "__init__.py").write_text("__version__ = '0.0.9'\n")
    with ray_nodes(0) as (cluster, _):
        with pytest.raises(ConfigError, match=r"is a cluster without a core\. Let a machine with cores join"):
            run_sweep(home, sweep, sweep.runs, "ray", address=cluster.address)
        add_node(cluster, 1, PYTHONPATH=str(tmp_path / "other"))
        with pytest.raises(ConfigError, match=r"the node .+ has Ingle 0\.0\.9, and this machine has .+\. Install Ingle .+ there"):
            run_sweep(home, sweep, sweep.runs, "ray", address=cluster.address)


@needs_ray
def test_a_worker_is_lost_once_though_its_node_dies_next() -> None:
    """The node says that its worker was lost, and is lost itself before its task has ended."""
    import ray

    def messages_of() -> Iterator[Any]:
        yield ray.put(({"kind": "step"}, b""))
        yield ray.put((None, b""))
        raise ray.exceptions.NodeDiedError("gone")

    messages: Messages = queue.Queue()
    with ray_nodes(1) as (cluster, _):
        ray.init(cluster.address, log_to_driver=False)
        runner._Task(ray, messages_of(), 3, messages).end()
        ray.shutdown()
    assert list(messages.queue) == [(3, {"kind": "step"}, b""), (3, None, b"")]


@needs_ray
def test_where_no_cluster_is(place: tuple[Home, Sweep]) -> None:
    _, sweep = place
    jobs = jobs_of(sweep, sweep.runs)
    for address, message in (
        ("127.0.0.1:1", r"No Ray cluster answers there .*ray start --head --port=1\."),
        ("somewhere", "must be HOST:PORT"),
    ):
        with pytest.raises(ConfigError, match=message):
            runner.run_jobs(jobs, 0, lambda *_: None, lambda: False, address)


def test_without_ray_the_command_that_installs_it_is_said(place: tuple[Home, Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    _, sweep = place
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "ray" else importlib.util.find_spec(name))
    with pytest.raises(ConfigError, match=r"Sweeps on other machines need Ray, which is not installed\. Run: .* install"):
        runner.run_jobs(jobs_of(sweep, sweep.runs), 1, lambda *_: None, lambda: False)


def listening(home: Home) -> list[str]:
    """Addresses on which a home's processes wait for connections."""
    inodes = set[str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"INGLE_TEST_MARK={home.root}".encode() in (folder / "environ").read_bytes():
                inodes |= {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:
            continue
    found = list[str]()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.append(".".join(str(int(fields[1].split(":")[0][-8:][i : i + 2], 16)) for i in (6, 4, 2, 0)))
    return found
