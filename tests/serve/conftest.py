"""Servers for the tests: few, and started when they are first needed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.homes import lent
from tests.serve.servers import Server, serving, write_long_model


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers nonsense at once, for as long as it is let."""
    return write_long_model(tmp_path_factory.mktemp("models") / "long")


@pytest.fixture(scope="session")
def kept_home(tmp_path_factory: pytest.TempPathFactory, long_folder: Path) -> Path:
    """A home that keeps it as "tiny", to be copied: what is done once takes no time later.

    Without drafts: nonsense repeats itself, and sixteen tokens in a step would end what has to last.
    """
    home = tmp_path_factory.mktemp("kept")
    (home / "config.toml").write_text("[serve]\ndrafts = false\n")
    ingle(home, "pull", str(long_folder), "--name", "tiny")
    return home


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server for all tests that do it no harm."""
    with serving(copied(kept_home, tmp_path_factory.mktemp("served") / "home")) as running:
        yield running


@pytest.fixture
def served_home(tmp_path: Path, kept_home: Path) -> Path:
    """A home of one's own that keeps "tiny", to start a server in."""
    return copied(kept_home, tmp_path / "home")


@pytest.fixture(scope="session")
def smollm2_server(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[Server]:
    """A server whose answers are words. What is kept is the tests' own home's, what is recorded is not."""
    with serving(lent(smollm2_home, tmp_path_factory.mktemp("words") / "home").root) as running:
        yield running


def copied(home: Path, to: Path) -> Path:
    """The same home once more."""
    shutil.copytree(home, to)
    return to
