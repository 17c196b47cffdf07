"""`ingle see`, and `ingle make tune sight` as far as it refuses, on a tiny model with a sight of random numbers."""

import json
from pathlib import Path

import pytest

from ingle.core.media import Picture
from ingle.gate.checks.looks import COLOURS, drawn
from ingle.home.deltas import put_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.media.picture import png_of
from ingle.media.sight import EYE
from tests.cli.place import ingle, write_model
from tests.media.eye import give_eye
from tests.media.test_projected import tensors


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("see")
    home = Home(folder / "home")
    pull(home, str(write_model(folder / "tiny")), lambda _: None, "tiny")
    put_delta(home, "sight", "sight", get_kept(home, "tiny").digest, tensors(hidden=64), {"eye": EYE})
    give_eye(home, folder / "eye")
    return home.root


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = []
    for colour in ("red", "blue"):
        path = tmp_path / f"{colour}.png"
        path.write_bytes(png_of(Picture(drawn("disc", COLOURS[colour]))))
        paths.append(str(path))
    return paths


def test_it_answers_about_each_picture(home: Path, pictures: list[str]) -> None:
    told = json.loads(ingle(home, "see", *pictures, "What is it?", "--json", "--max-tokens", "6").stdout)
    assert (told["model"], told["question"]) == ("tiny+sight", "What is it?")
    assert [one["file"] for one in told["answers"]] == pictures
    lines = ingle(home, "see", *pictures, "--max-tokens", "6").stdout.splitlines()
    assert lines[0].startswith(f"{pictures[0]}: ")
    assert ingle(home, "see", pictures[0], "--model", "tiny+sight", "--max-tokens", "6").stdout.strip()


def test_what_can_not_be_asked_is_refused(home: Path, pictures: list[str], tmp_path: Path) -> None:
    assert "There is no such file" in ingle(home, "see", "none.png", code=2).stderr
    assert "There is no such file" in ingle(home, "see", "none.png", pictures[0], "What?", code=2).stderr
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert "no picture that can be read" in ingle(home, "see", str(tmp_path / "bad.png"), code=2).stderr
    assert "can't see pictures" in ingle(home, "see", pictures[0], "--model", "tiny", code=2).stderr
    assert "ingle pull sight" in ingle(tmp_path / "empty", "see", pictures[0], code=3).stderr


def test_learning_to_see_says_what_it_lacks(home: Path, pictures: list[str], tmp_path: Path) -> None:
    assert "at least eight pictures" in ingle(home, "tune", "sight", "tiny", "--from", str(tmp_path), "--name", "x", code=2).stderr
    assert "must be a folder" in ingle(home, "tune", "sight", "tiny", "--from", pictures[0], "--name", "x", code=2).stderr
    assert "A sight is made for one model" in ingle(home, "tune", "sight", "tiny", "other", code=2).stderr
