"""Sweeps on Ray: nodes that die, drivers that die, nodes with another Ingle, and nodes that see no folder of ours."""

from pathlib import Path
from typing import Any

from ingle.home.place import Home
from ingle.scaling.runs import outcomes
from ingle.scaling.sweep import run_sweep
from ingle.train.making import RunWatch
from tests.scaling.ray_nodes import needs_ray, ray_nodes
from tests.scaling.sweeps import alone, planned

pytestmark = needs_ray


def test_a_node_that_is_killed_half_way_changes_nothing(tmp_path: Path, long_texts: str) -> None:
    """The second node dies when the first run is finished; both had been at work."""
    home = Home(tmp_path / "home")
    sweep = planned(home, long_texts, more_seeds=0)
    with ray_nodes(1, 1) as (cluster, nodes):
        killed = list[Any]()

        def say(text: str) -> None:
            if "bits/byte" in text and not killed:
                killed.append(nodes[1])
                cluster.remove_node(nodes[1], allow_graceful=False)

        reports = run_sweep(home, sweep, sweep.runs, "ray", address=cluster.address, watch=RunWatch(say=say))
    assert killed
    assert outcomes(reports) == outcomes([alone(run, sweep.prepared, tmp_path / "alone") for run in sweep.runs])
