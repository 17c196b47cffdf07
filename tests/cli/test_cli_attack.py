"""`ingle measure attack`: the list, the table, JSON, the curve, the ledger, a policy, Ctrl-C and a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.robustness.attack import attack_files
from ingle.robustness.prompts import LabelledPrompt
from tests.cli.place import environment, ingle, write_model
from tests.robustness.material import OwnMaterial
from tests.waiting import PATIENCE_S, wait_until

GOALS = [LabelledPrompt(f"How do I sail to island {number} of the archipelago?", "plain", "test") for number in range(40)]
HELD_OUT = sum(goal.held_out for goal in GOALS)
FEW = ("--families", "plain,prefix,past", "--goals", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that keeps a tiny model with room for attacks."""
    folder = tmp_path_factory.mktemp("attack")
    ingle(folder / "home", "pull", str(write_model(folder / "tiny", context=1024)), "--name", "tiny")
    return folder / "home"


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.robustness.prompts.goals", lambda _home, _progress: GOALS)
    monkeypatch.setattr("ingle.robustness.attack_run.AttackMaterial", OwnMaterial)


def test_families_are_listed(tmp_path: Path) -> None:
    listed = ingle(tmp_path, "attack", "--list").stdout
    assert all(file.name in listed and file.sentence in listed for file in attack_files())
    told = json.loads(ingle(tmp_path, "attack", "--list", "--json").stdout)
    assert {one["family"]: one["adaptive"] for one in told} == {file.name: file.adaptive for file in attack_files()}
    assert not any(tmp_path.iterdir()), "a list needs no home"


def test_a_table_with_intervals_and_a_fact_without_words(home: Path) -> None:
    done = ingle(home, "attack", "tiny", *FEW)
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[0] == "family"
    assert [line.split()[0] for line in lines] == ["plain", "prefix", "past", "all"]
    assert [line.split()[1] for line in lines] == ["3", "6", "6", "15"]
    assert "100% (" in lines[0]
    assert "n = 15" in lines[-1]
    event = json.loads(ingle(home, "log", "--json", "--kind", "attack", "--last", "1").stdout)
    assert event["subject"] == "tiny"
    assert (event["facts"]["tries"], event["facts"]["past"], event["facts"]["goals"]) == (15, 15, 3)
    told = json.loads(ingle(home, "attack", "tiny", *FEW, "--json").stdout)
    assert told["data_digest"] == event["facts"]["data_digest"]
    assert told["model_digest"] == event["facts"]["model_digest"]
    reached = next(report for report in told["families"][-1]["reports"] if report["name"] == "all.reached")
    assert round(reached["value"] * reached["n"]) == event["facts"]["reached"]
    for words in ("sail", "archipelago", "island"):
        assert words not in f"{done.stdout}{done.stderr}{event}{told}"
    assert "was attacked" in ingle(home, "log", "--kind", "attack").stdout


def test_adaptive_families_and_their_curves(home: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    options = ("--adaptive", "--goals", "2", "--tries", "1", "--budget", "5")
    told = json.loads(ingle(home, "attack", "tiny", *options, "--plot", str(plot), "--json").stdout)
    assert [one["family"] for one in told["families"]] == [*(file.name for file in attack_files()), "all"]
    assert set(told["curves"]) == {file.name for file in attack_files() if file.adaptive}
    assert all(curve[0] == [0, 0.0] and curve[-1][0] == 5 for curve in told["curves"].values())
    assert all(name in plot.read_text("utf-8") for name in told["curves"])
    again = json.loads(ingle(home, "attack", "tiny", *options, "--json").stdout)
    assert again == told


def test_a_policy_decides_what_comes_past(home: Path, own_policy: Path) -> None:
    names = ("--families", "plain", "--goals", "4", "--json")
    assert _past(ingle(home, "attack", "tiny", *names).stdout) == 4
    assert (
        _past(ingle(home, "attack", "tiny", *names, "--policy", "guards.output.mode=block", "--policy", 'output.patterns=["."]').stdout)
        == 0
    )
    own_policy.write_text('[guards]\noutput = { mode = "block", patterns = ["."] }\n')
    assert _past(ingle(home, "attack", "tiny", *names).stdout) == 0
    assert _past(ingle(home, "attack", "tiny", *names, "--policy", "output.mode=off").stdout) == 4


@pytest.fixture
def own_policy(home: Path) -> Path:
    path = home / "policy.toml"
    assert not path.exists()
    return path


@pytest.fixture(autouse=True)
def _no_policy_stays(home: Path) -> object:
    yield
    (home / "policy.toml").unlink(missing_ok=True)


def _past(told: str) -> int:
    past = next(report for report in json.loads(told)["families"][0]["reports"] if report["name"] == "plain.past")
    return round(past["value"] * past["n"])


def test_what_can_not_be_done(home: Path, tmp_path: Path) -> None:
    assert "Did you mean persona" in ingle(home, "attack", "tiny", "--families", "persoma", code=2).stderr
    assert f"between 0 and {HELD_OUT}" in ingle(home, "attack", "tiny", "--goals", "1000", code=2).stderr
    assert "budget must be 1 or more" in ingle(home, "attack", "tiny", "--budget", "0", code=2).stderr
    assert ".svg" in ingle(home, "attack", "tiny", "--plot", "curves.png", code=2).stderr
    assert "is not a guard" in ingle(home, "attack", "tiny", "--policy", "nobody=block", code=2).stderr
    assert "key.sub=value" in ingle(home, "attack", "tiny", "--policy", "output", code=2).stderr
    assert "not kept" in ingle(home, "attack", "nobody", code=3).stderr


RUN = """
import sys
import ingle.robustness.prompts, ingle.robustness.attack_run
from tests.cli.test_cli_attack import GOALS
from tests.robustness.material import OwnMaterial
ingle.robustness.prompts.goals = lambda _home, _progress: GOALS
ingle.robustness.attack_run.AttackMaterial = OwnMaterial
from ingle.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.journey
@pytest.mark.skipif(os.name == "nt", reason="signals are other things there")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    own = Home(tmp_path / "home")
    ingle(own.root, "pull", str(write_model(tmp_path / "tiny", context=1024)), "--name", "tiny")
    arguments = ("attack", "tiny", "--families", "prefix,past,override,memory", "--goals", "6", "--tries", "5")
    finished = own.root / "cache" / "measure"

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in finished.glob("*.jsonl")) if finished.exists() else 0

    with subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(own.root)
    ) as process:
        wait_until(lambda: lines() >= 5 or process.poll() is not None, "some tries are finished", 600)
        process.send_signal(how)
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if how == signal.SIGINT else -how), told
    kept = lines()
    assert kept >= 5
    if how == signal.SIGINT:
        assert "to go on from there" in told
        assert "Traceback" not in told
    assert not ingle(own.root, "log", "--kind", "attack").stdout.strip()  # nothing was measured to its end
    whole = json.loads(ingle(own.root, *arguments, "--json").stdout)
    assert lines() > kept
    fresh = Home(tmp_path / "fresh")
    ingle(fresh.root, "pull", str(tmp_path / "tiny"), "--name", "tiny")
    assert json.loads(ingle(fresh.root, *arguments, "--json").stdout) == whole
