"""The memory that a container leaves a process, whichever version of cgroups tells it; and limits that a process sets for itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from ingle.core.process import memory_bytes

MB = 1 << 20


def told(folder: Path, line: str, limits: dict[str, str]) -> int:
    """The memory of a process whose /proc/self/cgroup is this line, where these files tell the limits."""
    (folder / "cgroup").write_text(f"7:blkio:/elsewhere\n{line}\n")
    for path, value in limits.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(value + "\n")
    return memory_bytes(folder / "cgroup", folder)


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        ("0::/", {"memory.max": f"{350 * MB}"}, 350 * MB),
        ("0::/user/me", {"memory.max": "max", "user/me/memory.max": f"{700 * MB}"}, 700 * MB),
        ("0::/user/me", {"user/memory.max": f"{300 * MB}", "user/me/memory.max": f"{700 * MB}"}, 300 * MB),
        ("0::/of/the/host", {"memory.max": f"{350 * MB}"}, 350 * MB),
        ("4:cpu,memory:/docker/1", {"memory/docker/1/memory.limit_in_bytes": f"{500 * MB}"}, 500 * MB),
        ("4:memory:/docker/of/the/host", {"memory/memory.limit_in_bytes": f"{500 * MB}"}, 500 * MB),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, line: str, limits: dict[str, str], expected: int) -> None:
    assert told(tmp_path, line, limits) == expected


@pytest.mark.parametrize("limits", [{}, {"memory.max": "max"}, {"memory.max": f"{1 << 62}"}, {"memory.max": "nonsense"}])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, limits: dict[str, str]) -> None:
    assert told(tmp_path, "0::/", limits) == memory_bytes(tmp_path / "nothing", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't keep to it")
def test_what_is_beyond_the_limit_fails_in_its_own_process() -> None:
    code = "from ingle.core.process import limit_memory; limit_memory(200 << 20); bytes(100 << 20); bytes(400 << 20)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr
