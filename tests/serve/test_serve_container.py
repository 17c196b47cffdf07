"""A server in a small container: what it may remember follows the container's memory, not the machine's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.homes import lent
from tests.serve.servers import serving

pytestmark = pytest.mark.journey

LIMIT = 350 << 20
MOUNT = Path("/sys/fs/cgroup")
VERSIONS = {"memory.limit_in_bytes": MOUNT / "memory", "memory.max": MOUNT}
"""File of the limit, and where groups with one are made, in cgroup 1 and 2."""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A group of processes with 350 MB."""
    for limit, parent in VERSIONS.items():
        group = parent / f"ingle-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(LIMIT))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("needs the right to limit a group's memory")


def test_a_small_container_is_not_filled(smollm2_home: Home, tmp_path: Path, small_group: Path) -> None:
    join = f"import os; open({str(small_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    with serving(lent(smollm2_home, tmp_path / "home").root, before=join) as server:
        assert server.health()["most_state_bytes"] <= LIMIT // 4
        for turn in range(5):
            words = " ".join(f"word{turn}{i}" for i in range(500))
            assert server.chat(words, max_tokens=4).status_code == 200
        assert server.process.poll() is None
