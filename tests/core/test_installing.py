"""What a message tells people to run installs what is missing into this environment, and nothing that the package does not ask for."""

import shlex
import subprocess
import sys

import pytest

from ingle.core import files
from ingle.core.files import how_to_install, install_command, requirements

EXTRAS = [extra for extra in requirements() if extra]


def test_requirements_are_those_of_the_package() -> None:
    assert requirements()["learn"].keys() == {"torch"}
    assert {"numpy", "typer"} <= requirements()[""].keys()
    assert {"measure", "plot", "postgres", "timestamp", "bench", "dev"} <= set(EXTRAS)


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_is_for_this_environment_and_names_no_ingle(extra: str) -> None:
    program, *words = shlex.split(install_command(extra))
    assert program == sys.executable
    assert words[:3] == ["-m", "pip", "install"]
    assert len(words) > 3 and not any(word.startswith("ingle") for word in words)
    assert set(words[3:]) <= set(requirements()[extra].values())


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "installed", lambda name: "" if name == "sacrebleu" else "1")
    assert shlex.split(install_command("measure"))[4:] == [requirements()["measure"]["sacrebleu"]]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/uv")
    assert install_command("learn").startswith(f"uv pip install --python {sys.executable} ")


def test_the_command_runs() -> None:
    command = f"{install_command('plot')} --dry-run --no-index --quiet"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # all of it is here, so nothing has to be fetched


@pytest.mark.parametrize(("system", "words"), [("linux", "2.7 GB"), ("darwin", "130 MB"), ("win32", "130 MB")])
def test_how_much_is_fetched(system: str, words: str) -> None:
    assert words in files.fetches("learn", system)
    assert all("MB" in how_to_install(extra) for extra in ("measure", "plot", "postgres", "timestamp"))
