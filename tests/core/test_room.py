"""Free memory, and the words with which an act begins or is refused."""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.core.headroom import CURE, Headroom, Need, NoRoom, pace, room_for, speed, spell_bytes, spell_time
from ingle.core.process import free_bytes, own_bytes

MB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")


def told(folder: Path, files: dict[str, str], meminfo: str = "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n") -> int | None:
    """Free memory, where the system says this. `cgroup` names the process's group."""
    for path, value in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(value)
    (folder / "meminfo").write_text(meminfo)
    return free_bytes(folder / "cgroup", folder, folder / "meminfo")


def test_without_a_container_the_machine_counts(tmp_path: Path) -> None:
    assert told(tmp_path, {}) == 8_000_000 << 10


def test_what_is_left_of_the_container_counts_with_files_that_were_read(tmp_path: Path) -> None:
    group = {"memory.max": f"{900 * MB}", "memory.current": f"{700 * MB}", "memory.stat": f"anon 5\ninactive_file {100 * MB}\n"}
    assert told(tmp_path, {"cgroup": "0::/\n", **group}) == 300 * MB
    older = {"memory.limit_in_bytes": f"{500 * MB}", "memory.usage_in_bytes": f"{450 * MB}", "memory.stat": f"total_inactive_file {MB}\n"}
    assert told(tmp_path / "v1", {"cgroup": "4:memory:/x\n", **{f"memory/x/{name}": value for name, value in older.items()}}) == 51 * MB


@pytest.mark.parametrize("group", [{"memory.max": "max"}, {"memory.max": "nonsense"}, {"memory.max": "5", "memory.current": "1"}])
def test_a_container_that_says_nothing_limits_nothing(tmp_path: Path, group: dict[str, str]) -> None:
    assert told(tmp_path, {"cgroup": "0::/\n", **group}) == 8_000_000 << 10


def test_a_container_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    group = {"memory.max": "100", "memory.current": "700", "memory.stat": "anon 5\n"}
    assert told(tmp_path, {"cgroup": "0::/\n", **group}) == 0


@linux
def test_a_limited_address_space_counts() -> None:
    code = "from ingle.core.process import *; limit_memory(200 << 20); print(free_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 150 * MB < int(done.stdout) <= 200 * MB


@linux
def test_the_memory_of_a_process_is_what_it_took() -> None:
    before = own_bytes()
    with mmap.mmap(-1, 64 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:  # pages that no test before has freed
        for page in range(0, 64 * MB, 4096):
            held[page] = 1
        assert 0.9 * 64 * MB < own_bytes() - before < 1.5 * 64 * MB


def test_an_act_says_what_it_takes() -> None:
    room = Headroom(Need("Learning this", {"weights": 1_500_000_000, "a batch": 400_000_000}, 40.2), 12_000_000_000)
    assert room.told == "Learning this takes about 40 s and 1.9 GB of memory; 12 GB are free."
    assert room.table() == {
        "seconds": 40.2, "memory_bytes": 1_900_000_000, "free_bytes": 12_000_000_000, "fits": True,
        "parts": {"weights": 1_500_000_000, "a batch": 400_000_000},
    }  # fmt: skip
    room.check()


def test_little_is_not_told_and_what_nobody_knows_is_not_refused() -> None:
    assert Headroom(Need("Learning this", {"weights": 900_000_000}, 1.9), 5).told == ""
    unknown = Headroom(Need("Learning this", {"weights": 10**15}, 1.0), None)
    unknown.check()
    assert unknown.told == "Learning this takes about 1 s and 1,000 TB of memory."


def test_too_much_is_refused_with_what_why_and_cure() -> None:
    need = Need("This tune", {"the model in PyTorch": 6_800_000_000, "a batch": 400_000_000}, 40)
    with pytest.raises(NoRoom) as caught:
        Headroom(need, 2_100_000_000).check()
    said = "This tune needs about 7.2 GB of memory, 6.8 GB of it for the model in PyTorch, and 2.1 GB are free."
    assert str(caught.value) == f"{said} {CURE}"
    assert (caught.value.exit_code, caught.value.http_status) == (16, 503)


def test_a_setting_that_allows_less_is_named() -> None:
    room = room_for(Need("Learning this", {"weights": 7_000_000_000}), 20_000_000_000, "learn.memory_mb", 4_000_000_000)
    with pytest.raises(NoRoom, match=r"and learn\.memory_mb allows 4\.0 GB\. Raise learn\.memory_mb\."):
        room.check()
    assert room_for(Need("Learning this", {"weights": 3}), 5, "learn.memory_mb", 9).free == 5


@pytest.mark.parametrize(
    ("count", "spelled"),
    [(1, "0 MB"), (3_000_000, "3 MB"), (999_600_000, "1.0 GB"), (1_940_000_000, "1.9 GB"), (12_300_000_000, "12 GB"), (4e12, "4.0 TB")],
)
def test_bytes_in_words(count: float, spelled: str) -> None:
    assert spell_bytes(count) == spelled


@pytest.mark.parametrize(("seconds", "spelled"), [(0.1, "1 s"), (99, "99 s"), (720, "12 minutes"), (90_000, "25 hours")])
def test_times_in_words(seconds: float, spelled: str) -> None:
    assert spell_time(seconds) == spelled


def test_more_threads_and_smaller_numbers_are_faster() -> None:
    assert pace() >= 1e8 and speed(1, 1) > speed(1, 2) > speed(1, 4) > 0
    assert speed(None, 2) >= speed(1, 2) and speed(10_000, 2) == speed(None, 2)
