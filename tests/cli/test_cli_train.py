"""`ingle make train`, as people use it, and base models without a chat template."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ingle.home.place import Home
from tests.cli.place import ingle
from tests.scaling.place import table, write_texts


def toml(values: Any, prefix: str = "") -> str:
    """A table of tables as TOML; JSON writes values alike."""
    flat = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if not isinstance(value, dict))
    return flat + "".join(f"[{prefix}{key}]\n{toml(value, f'{prefix}{key}.')}" for key, value in values.items() if isinstance(value, dict))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("train")
    path = folder / "little.toml"
    path.write_text(toml(table(write_texts(folder / "texts.jsonl"), "hybrid")), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, config: str) -> tuple[Path, str, str]:
    """A home that keeps `little`, and what making it printed."""
    home = tmp_path_factory.mktemp("home")
    done = ingle(home, "train", config, "--name", "little", "--out", str(home / "report.json"))
    return home, done.stdout, done.stderr


def test_a_table_a_plot_and_how_to_use_it(trained: tuple[Path, str, str]) -> None:
    home, out, err = trained
    heading, *lines = out.splitlines()
    assert heading.split() == ["figure", "value"]
    told = {line.split("  ")[0] for line in lines}
    assert {"parameters", "loss, training", "loss, held out", "texts: bits per byte", "speed", "time"} <= told
    assert Path(next(line for line in lines if line.startswith("Loss curve: ")).removeprefix("Loss curve: ")).exists()
    assert lines[-1] == 'Go on with it: ingle "Once" little'
    assert "training: 1 of 12" in err
    assert "left" in err
    report = json.loads((home / "report.json").read_text("utf-8"))
    facts = [json.loads(line) for line in ingle(home, "log", "--json", "--kind", "train").stdout.splitlines()]
    [made] = [fact for fact in facts if fact["kind"] == "train"]
    assert made["facts"]["base"] == report["base"]
    assert "texts.jsonl" not in json.dumps(facts)


def test_again_nothing_is_done_and_nothing_told_twice(trained: tuple[Path, str, str], config: str) -> None:
    home, _, _ = trained
    before = ingle(home, "log", "--json").stdout
    report = json.loads(ingle(home, "train", config, "--name", "little", "--json").stdout)
    assert report["finished"] is True
    assert report["memory_parameters"] > 0
    assert ingle(home, "log", "--json").stdout == before
    shown = ingle(home, "show", "little").stdout
    assert "made by   ingle make train little.toml --name little" in shown
    assert "texts: bits per byte" in shown
    assert json.loads(ingle(home, "show", "little", "--json").stdout)["training"] == report
    assert "is as it was kept" in ingle(home, "verify", "--models").stdout


def test_what_is_judged_or_made_anew_is_told_anew(trained: tuple[Path, str, str], config: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained[0], home)

    def facts() -> list[dict[str, Any]]:
        told = [json.loads(line) for line in ingle(home, "log", "--json").stdout.splitlines()]
        return [fact for fact in told if fact["kind"].startswith(("train", "rm"))]

    before = facts()
    ingle(home, "train", config, "--name", "little", "--set", "judge.items=3")
    assert [fact["kind"] for fact in facts()] == [*(fact["kind"] for fact in before), "train.judge"]
    ingle(home, "rm", "little", "--yes")
    ingle(home, "train", config, "--name", "little")
    assert [fact["kind"] for fact in facts()][-3:] == ["rm", "train", "train.judge"]


def test_a_base_model_goes_on_from_plain_text(trained: tuple[Path, str, str]) -> None:
    home, _, _ = trained
    options = ["--max-tokens", "5", "--temperature", "0", "--format", "fp32"]
    done = ingle(home, "run", "anna buys", "little", *options)
    assert done.stdout.strip()
    assert "little has no chat template: it goes on from your text" in done.stderr
    assert ingle(home, "run", "anna buys", "little", "--raw", *options).stdout == done.stdout
    assert "--system" in ingle(home, "run", "anna buys", "little", "--system", "x", *options, code=2).stderr
    talked = ingle(home, "chat", "little", *options, given=b"anna buys\n")
    assert talked.stdout.strip() == done.stdout.strip()


def test_what_is_wrong_is_one_line(trained: tuple[Path, str, str], config: str, tmp_path: Path) -> None:
    home, _, _ = trained

    def refused(*arguments: str) -> str:
        return ingle(home, "train", *arguments, code=2).stderr.splitlines()[-1]

    assert "--name little" in refused(config)
    assert "must be readable" in refused(str(tmp_path / "none.toml"), "--name", "x")
    assert "Did you mean width" in refused(config, "--name", "x", "--set", "model.widht=3")
    assert "The name little is taken" in refused(config, "--name", "little", "--set", "train.seed=5")
    assert "model.heads must divide" in refused(config, "--name", "x", "--set", "model.heads=3")


def test_without_the_extra_it_says_how_to_get_it(own_home: Home, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    assert f"{sys.executable} -m pip install" in ingle(own_home.root, "train", config, "--name", "x", code=2).stderr
