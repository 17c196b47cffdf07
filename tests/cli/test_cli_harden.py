"""`ingle make harden`, as people use it."""

import json

import pytest

from ingle.core.config import to_table
from ingle.home.place import Home
from ingle.learn import harden as verb
from tests.cli.place import ingle
from tests.learn.test_harden import CURRICULUM, SETTINGS, some_attacks

_FEW = [f"--set=push.steps={SETTINGS.push.steps}", "--set=rank=4", "--set=answer_tokens=4", "--set=train.batch_tokens=512"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "read_curriculum", lambda *_: CURRICULUM)
    monkeypatch.setattr(verb, "attacks", some_attacks)


def test_a_model_is_hardened_and_its_life_told(own_home: Home) -> None:
    done = ingle(own_home.root, "harden", "tiny", "--rounds", "1", "--epochs", "1", "--force", *_FEW, "--json")
    told = json.loads(done.stdout)
    assert (told["model"], told["gate"]["maker"], told["settings"]["rounds"]) == ("tiny+hard", "harden", 1)
    assert {one["check"] for one in told["gate"]["findings"]} == {"attacks", "bias", "bits", "refusals", "safety"}
    assert told["settings"]["push"] == to_table(SETTINGS.push)
    [fact] = [json.loads(line) for line in ingle(own_home.root, "log", "--json", "--kind", "harden").stdout.splitlines()]
    assert "hardened" in ingle(own_home.root, "log", "tiny+hard").stdout
    assert "zebra" not in json.dumps(fact) + done.stdout
    again = ingle(own_home.root, "harden", "tiny", "--rounds", "1", "--epochs", "1", "--force", *_FEW)
    assert "refused before" in again.stdout and "look-alike (harmless)" in again.stdout and "ingle chat tiny+hard" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "--rounds", "0"), "rounds must be at least 1"),
        (("tiny", "--plain", "0"), "taught.plain must be at least 1"),
        (("tiny", "--set", "push.radius=0"), "push must have a radius above 0"),
        (("tiny", "--set", "pull.steps=1"), "push"),
        (("tiny", "--name", "a b"), "a b"),
        (("tiny", "--policy", "harden.refusals.most_lost=7"), "must be between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(own_home: Home, arguments: tuple[str, ...], said: str) -> None:
    done = ingle(own_home.root, "harden", *arguments, code=2)
    assert said in done.stderr and "Traceback" not in done.stderr
