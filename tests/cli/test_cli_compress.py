"""`ingle make prune` and `ingle make compress`, as people use them."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingle.compress import pruning, quantising, search
from ingle.home.place import Home
from ingle.measure.suites import SUITES
from tests.cli.place import ingle
from tests.compress.place import some_texts
from tests.measure.test_run import BITS, CHOICE

LITTLE = [
    "--set", "calibration.documents=3", "--set", "calibration.tokens=64", "--set", "measure.text_items=3", "--set", "measure.task=boolq",
    "--set", "measure.task_items=4", "--set", "measure.tokens=6", "--set", "measure.turns=2", "--set", "grid.quantisers=['round']",
    "--set", "grid.bits=[4.0]", "--set", "grid.channels=[0.33]", "--set", "grid.layers=[1]", "--set", "grid.pruned_bits=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in (BITS, CHOICE):
        monkeypatch.setitem(SUITES, suite.name, suite)
    texts = some_texts()
    for module in (pruning, quantising, search):
        monkeypatch.setattr(module, "read_texts", lambda _home, _progress: texts)


def facts(home: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ingle(home, "log", "--json", "--kind", kind).stdout.splitlines()]


def test_a_model_is_pruned_served_and_its_life_told(own_home: Home) -> None:
    home = own_home.root
    small = ("prune", "tiny", "--structure", "channels", "--share", "1/3", "--method", "magnitude", "--force")
    done = ingle(home, *small, "--name", "narrow", "--policy", "safety.on=false")
    assert "0.67" in done.stdout or "0.7" in done.stdout or "0.8" in done.stdout
    assert "ingle chat tiny+narrow" in done.stdout
    told = json.loads(ingle(home, *small, "--name", "narrow", "--json").stdout)
    assert (told["structure"], told["method"], told["gate"]["maker"]) == ("channels", "magnitude", "prune")
    [fact] = facts(home, "prune")
    assert fact["subject"] == "tiny+narrow"
    assert ingle(home, "run", "hello", "tiny+narrow", "--max-tokens", "4").stdout
    life = ingle(home, "log", "tiny").stdout
    assert "tiny+narrow was pruned (magnitude, channels" in life
    ingle(home, "rm", "tiny+narrow", "--yes")
    assert "tiny+narrow" not in ingle(home, "list").stdout


def test_what_may_be_lost_is_the_gates_limit(own_home: Home) -> None:
    arguments = ("--structure", "none", "--share", "0.5", "--method", "wanda", "--set", "calibration.documents=2")
    few = ("--set", "calibration.tokens=32", "--policy", "safety.on=false", "--force", "--json")
    told = json.loads(ingle(own_home.root, "prune", "tiny", *arguments, *few, "--quality-loss", "3.5%").stdout)
    [bits] = [finding for finding in told["gate"]["findings"] if finding["check"] == "bits"]
    assert bits["limits"]["most_rise_percent"] == 3.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune", "tiny", "--structure", "layers", "--share", "0.3"), "The nearest: 1/2 = 0.5"),
        (("prune", "tiny", "--structure", "heads", "--share", "0.3"), "The nearest: 1/2 = 0.5"),
        (("prune", "tiny", "--structure", "2:4", "--share", "0.4"), "must be 0.5 for 2:4"),
        (("prune", "tiny", "--share", "a lot"), "For example 1/4"),
        (("prune", "tiny", "--method", "wander"), "Did you mean wanda?"),
        (("prune", "tiny", "--quality-loss", "much"), "For example 1%"),
        (("compress", "tiny", "--quality-loss", "-1%"), "0 or more percent"),
        (("compress", "tiny", "--for", "fun"), "joules"),
        (("compress", "tiny", "--plot", "x.pdf"), ".svg or .png"),
        (("compress", "nobody"), "is not kept"),
    ],
)
def test_bad_input_is_told(tiny_home: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in ingle(tiny_home, *arguments, code=3 if "nobody" in arguments else 2).stderr


def test_a_model_is_compressed(own_home: Home, tmp_path: Path) -> None:
    home, plot = own_home.root, tmp_path / "front.svg"
    rules = ("--policy", "safety.on=false", "--force")
    done = ingle(
        home, "compress", "tiny", "--quality-loss", "60%", "--for", "size", "--name", "small", "--plot", str(plot), *LITTLE, *rules
    )
    assert "ingle chat tiny+small" in done.stdout
    assert "chosen" in done.stdout and "as it is" in done.stdout
    assert plot.read_text().startswith("<svg")
    [fact] = facts(home, "compress")
    assert fact["subject"] == "tiny+small"
    told = json.loads(
        ingle(home, "compress", "tiny", "--quality-loss", "60%", "--for", "size", "--name", "again", *LITTLE, *rules, "--json").stdout
    )
    assert told["chosen"]["recipe"] == told["points"][[p["recipe"] for p in told["points"]].index(told["chosen"]["recipe"])]["recipe"]
    assert told["model"] == "tiny+again"


def test_a_budget_that_cannot_be_met_is_told_the_nearest_with_the_table(own_home: Home) -> None:
    nothing = [*LITTLE, "--set", "grid.layers=[]", "--set", "grid.channels=[]", "--set", "grid.heads=[]", "--set", "grid.bits=[]"]
    done = ingle(own_home.root, "compress", "tiny", *nothing, code=2)
    assert "none was tried" in done.stderr
    assert "as it is" in done.stderr
