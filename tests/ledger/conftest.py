"""Fixtures of the ledger's tests."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_place import Place


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A ledger of one's own: every test that uses it runs on both databases."""
    return Place(tmp_path / "ledger", request.getfixturevalue("postgres_url") if request.param == "postgresql" else "")


@pytest.fixture
def file_place(tmp_path: Path) -> Place:
    """The same in SQLite only, for what is done to its file."""
    return Place(tmp_path / "ledger")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB, where we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small disk needs an administrator")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
