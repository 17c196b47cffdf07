"""The home is found by convention, made for its owner alone, and says so when it can't be."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingle.core.errors import HomeError
from ingle.home.place import Home, find_home
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"INGLE_HOME": "/x/y", "XDG_DATA_HOME": "/data"}, "linux", "/x/y"),
        ({"XDG_DATA_HOME": "/data"}, "linux", "/data/ingle"),
        ({"XDG_DATA_HOME": "relative"}, "linux", "~/.local/share/ingle"),
        ({"INGLE_HOME": ""}, "linux", "~/.local/share/ingle"),
        ({"INGLE_HOME": "~/fire"}, "linux", "~/fire"),
        ({}, "darwin", "~/Library/Application Support/ingle"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/ingle"),
        ({}, "win32", "~/AppData/Local/ingle"),
    ],
)
def test_where_it_lies(environ: dict[str, str], platform: str, expected: str) -> None:
    assert find_home(environ, platform).root == Path(expected).expanduser()


def test_a_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home({"INGLE_HOME": "here"}).root == tmp_path / "here"


def test_the_database_is_in_the_home_or_elsewhere(tmp_path: Path) -> None:
    assert find_home({"INGLE_HOME": str(tmp_path)}).database_url == f"sqlite:///{tmp_path}/ingle.db"
    assert find_home({"INGLE_HOME": str(tmp_path), "INGLE_DATABASE_URL": "postgresql://x/y"}).database_url == "postgresql://x/y"


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home").create()
    for folder in (home.root, home.keys, home.bases, home.models):
        assert folder.stat().st_mode & 0o777 == 0o700
    home.create()


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="set INGLE_HOME"):
        Home(tmp_path / "file" / "home").create()
    with pytest.raises(HomeError, match="set INGLE_HOME"):
        Home(tmp_path / "file").create()


def test_a_home_that_cannot_be_written(small_disk: Path) -> None:
    home = Home(small_disk / "home").create()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(HomeError, match=r"read-only.*set INGLE_HOME"):
        home.create()


def test_a_lock_keeps_others_out_and_says_who_holds_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with home.lock("x", said.append):
            order.append("second")

    with home.lock("x"):
        with pytest.raises(HomeError, match=f"process {os.getpid()}"), home.lock("x", timeout_s=0):
            pass
        with home.lock("y"):
            pass  # another name is another lock
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: said, "the second one says for whom it waits")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert said == [f"Waiting for process {os.getpid()} (x)."]
    with home.lock("x", timeout_s=0):
        pass


def test_a_process_that_dies_gives_its_lock_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    code = (
        "import sys, time; from pathlib import Path; from ingle.home.place import Home\n"
        "with Home(Path(sys.argv[1])).lock('x'):\n    print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(HomeError, match=f"process {child.pid}"), home.lock("x", timeout_s=0):
            pass
        child.kill()
        child.wait()
    with home.lock("x", timeout_s=0):
        pass


def test_listing_and_finding_are_cheap() -> None:
    code = "import sys, ingle.home.kept, ingle.home.place, ingle.home.pull, ingle.ledger.chain, ingle.home.database; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "huggingface_hub", "cryptography", "numpy"} & set(loaded)
