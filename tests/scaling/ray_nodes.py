"""Ray nodes on this machine, on loopback."""

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ingle.scaling.runners.ray import stay_on_loopback

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not here: it comes with the extra sweep")
Add = Callable[..., Any]
_NUMBERS = itertools.count(2)


@contextmanager
def ray_nodes(*cores: int) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster with nodes of so many cores, the head first."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    stay_on_loopback()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        yield cluster, [add_node(cluster, count) for count in cores]
    finally:
        cluster.shutdown()


def add_node(cluster: Any, cores: int, **variables: str) -> Any:
    """Add a node, with these variables in its environment. Each has an address of its own, so that a driver is always at the head: whoever
    is at a node that dies, dies with it."""
    size, address = 100 << 20, f"127.0.0.{next(_NUMBERS) if cluster.head_node else 1}"
    return cluster.add_node(
        node_ip_address=address, num_cpus=cores, include_dashboard=False, object_store_memory=size, env_vars=variables or None
    )  # fmt: skip
