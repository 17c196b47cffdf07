"""Fixtures of the home's tests: a home, a server, a small disk. Nothing here touches the network."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_servers import Site, serving

from ingle.home.place import Home

_PIP = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key == "NO_PROXY"}


@pytest.fixture
def pip_environ() -> dict[str, str]:
    """This machine's own settings of pip and its connections, which the other tests don't see."""
    return dict(_PIP)


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [key for key in os.environ if key.startswith(("PIP_", "HF_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("ingle.home.fetch.BACKOFF_S", 0.001)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small disk needs an administrator")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
