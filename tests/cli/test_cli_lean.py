"""Lean models as people use them: pulled so, made so later, put back, and what is said where it can't be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.home.lean import read_lean
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.engine.test_formats import CONFIG, quantised_file
from tests.engine.test_lean import VOCABULARY, with_words
from tests.tuning.place import write_examples

RUN = ("run", "hello", "m", "--temperature", "0", "--max-tokens", "6")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantised_file(
        tmp_path_factory.mktemp("lean") / "m.gguf", "Q4_K", config=replace(CONFIG, vocab_size=VOCABULARY), extra=with_words
    )


def is_lean(home: Path) -> bool:
    [base] = Home(home).bases.iterdir()
    return read_lean(base) is not None


def test_a_model_is_pulled_lean_and_lives_as_any_other(tmp_path: Path, file: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    told = json.loads(ingle(home, "pull", str(file), "--name", "m", "--lean", "--json").stdout)
    assert told["lean"] and is_lean(home)
    ingle(other, "pull", str(file), "--name", "m")
    said = ingle(other, *RUN).stdout
    assert ingle(home, *RUN).stdout == said != ""
    assert (
        "made again where it is read" in ingle(home, "show", "m").stdout and json.loads(ingle(home, "show", "m", "--json").stdout)["lean"]
    )
    again = json.loads(ingle(home, "pull", str(file), "--name", "m", "--json").stdout)
    assert again["already"] and again["lean"], "it is known by its digest"
    assert is_lean(home), "and stays as it is"
    ingle(home, "verify", "--models")
    ingle(home, "backup", str(tmp_path / "backup"))
    ingle(tmp_path / "restored", "restore", str(tmp_path / "backup"))
    assert is_lean(tmp_path / "restored") and ingle(tmp_path / "restored", *RUN).stdout == said
    for place in (home, other):
        ingle(place, "export", "m", "--format", "gguf", "--out", str(tmp_path / f"{place.name}.gguf"))
    assert (tmp_path / "home.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()


def test_a_lean_model_learns_to_the_same_bytes(tmp_path: Path, file: Path) -> None:
    data, learned = write_examples(tmp_path / "data.jsonl"), list[bytes]()
    quick = ("--set", "train.epochs=1", "--set", "train.batch_tokens=192", "--set", "judge.forgetting=0", "--set", "judge.held_out=0")
    for lean in ("--lean", "--no-lean"):
        home = tmp_path / lean
        ingle(home, "pull", str(file), "--name", "m", lean)
        ingle(home, "tune", "m", data, "--name", "x", *quick, "--force")
        [tensors] = Home(home).deltas.glob("*/tensors.safetensors")
        learned.append(tensors.read_bytes())
        assert ingle(home, "run", "say 3", "m+x", "--temperature", "0", "--max-tokens", "6").stdout
    assert learned[0] == learned[1]


def test_later_and_back(tmp_path: Path, file: Path) -> None:
    home = tmp_path / "home"
    ingle(home, "pull", str(file), "--name", "m")
    [row] = json.loads(ingle(home, "lean", "--json").stdout)
    assert (row["name"], row["lean"]) == ("m", False) and row["disk_bytes"] > 1.9 * row["file_bytes"]
    assert "m is lean: " in ingle(home, "lean", "m").stdout and "is lean already" in ingle(home, "lean", "m").stdout
    [row] = json.loads(ingle(home, "lean", "--json").stdout)
    assert row["lean"] and row["disk_bytes"] < 1.2 * row["file_bytes"]
    table = json.loads(ingle(home, "lean", "m", "--whole", "--json").stdout)
    assert table["lean"] is False and table["freed_bytes"] < 0 and not is_lean(home)
    assert "as it came already" in ingle(home, "lean", "m", "--whole").stdout
    told = ingle(home, "log").stdout
    assert "m lies on the disk once, as it is served" in told and "m has its file on the disk again, as it came" in told
    assert told.count("lies on the disk once") == 1, "what changed nothing is no fact"


def test_what_cannot_be_lean_says_why(tmp_path: Path, tiny_folder: Path) -> None:
    home = tmp_path / "home"
    pulled = ingle(home, "pull", str(tiny_folder), "--name", "m", "--lean")
    assert "lie on the disk as they came" in pulled.stderr and "one GGUF file" in pulled.stderr
    assert "one GGUF file" in ingle(home, "lean", "m", code=2).stderr
    assert "as it came already" in ingle(home, "lean", "m", "--whole").stdout
    ingle(home, "verify", "--models")  # its own tokenizer.json has the name of a part of lean ones, and is there
    assert "ingle lean NAME --whole" in ingle(home, "lean", "--whole", code=2).stderr
    assert "is not kept" in ingle(home, "lean", "nothing", code=3).stderr


def test_the_setting_holds_for_every_pull(tmp_path: Path, file: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text("[pull]\nlean = true\n")
    ingle(home, "pull", str(file), "--name", "m")
    assert is_lean(home)
