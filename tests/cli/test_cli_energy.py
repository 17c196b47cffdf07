"""`ingle measure energy`: what a home has used, and what a model takes; estimates are called so."""

import json
from pathlib import Path

import pytest

from ingle.energy.label import TASKS
from ingle.energy.meter import open_meter
from tests.cli.place import ingle
from tests.serve.servers import write_long_model


@pytest.fixture(scope="module")
def used_home(tiny_home: Path) -> Path:
    """A home in which two answers were given."""
    for text in ("hello", "again"):
        ingle(tiny_home, "run", text, "--max-tokens", "8", "--temperature", "0")
    return tiny_home


def test_an_empty_home_has_used_nothing(tmp_path: Path) -> None:
    assert "Nothing has been answered or trained" in ingle(tmp_path, "energy").stderr
    told = json.loads(ingle(tmp_path, "energy", "--json").stdout)
    assert told == {"total": None, "grid": None, "by_day": [], "by_activity": [], "by_model": []}


def test_run_tells_its_joules_and_the_ledger_adds_them_up(used_home: Path) -> None:
    before = json.loads(ingle(used_home, "energy", "--json").stdout)["total"]
    answer = json.loads(ingle(used_home, "run", "more", "--json", "--max-tokens", "8").stdout)["usage"]["energy"]
    assert 0 <= answer["low"] <= answer["joules"] <= answer["high"] > 0 and answer["source"]
    told = json.loads(ingle(used_home, "energy", "--json", "--region", "de", "--days", "3").stdout)
    assert told["total"]["joules"] - before["joules"] == pytest.approx(answer["joules"], rel=1e-3)
    assert told["total"]["count"] == before["count"] + 1 and told["total"]["unmetered"] == 0
    assert told["grid"]["region"] == "DE" and told["grid"]["year"] == 2023
    assert told["total"]["co2_g"][0] == pytest.approx(told["total"]["joules"] / 3.6e6 * 381, rel=1e-3)
    assert [line["name"] for line in told["by_model"]] == ["tiny"] and [line["name"] for line in told["by_activity"]] == ["answers"]


def test_people_are_told_that_it_is_an_estimate_and_where_the_co2_is_from(used_home: Path, tmp_path: Path) -> None:
    said = ingle(used_home, "energy", "--region", "FR", "--plot", str(tmp_path / "days.svg"))
    assert "answers" in said.stdout and "tiny" in said.stdout and "CO₂" in said.stdout
    source = json.loads(ingle(used_home, "energy", "--json").stdout)["total"]["source"]
    assert ("worked out, not measured" in said.stderr) == ("model" in source)
    assert "Our World in Data" in said.stderr and "2023" in said.stderr
    assert (tmp_path / "days.svg").read_text("utf-8").startswith("<svg")


def test_what_can_not_be_done_is_said(used_home: Path, tmp_path: Path) -> None:
    assert "--region" in ingle(used_home, "energy", "--region", "XX", code=2).stderr
    assert "--plot" in ingle(used_home, "energy", "--plot", str(tmp_path / "x.pdf"), code=2).stderr
    assert "--check" in ingle(used_home, "energy", "--check", "--label", "tiny", code=2).stderr
    ingle(used_home, "energy", "--label", "nobody", code=3)


def test_a_label_is_measured_kept_shown_and_recorded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ingle(home, "pull", str(write_long_model(tmp_path / "long")), "--name", "long")
    assert "energy" not in ingle(home, "show", "long").stdout
    told = json.loads(ingle(home, "energy", "--label", "long", "--rounds", "1", "--json").stdout)
    assert [part["task"] for part in told["parts"]] == [task for task, _, _ in TASKS]
    assert 0 < told["per_thousand"]["low"] <= told["per_thousand"]["joules"] <= told["per_thousand"]["high"]
    assert "AI Energy Score" in told["comparable"] and told["machine"] and told["cores"] >= 1
    assert "for 1,000 answers" in ingle(home, "show", "long").stdout
    assert json.loads(ingle(home, "show", "long", "--json").stdout)["energy_label"] == told
    [fact] = [json.loads(line) for line in ingle(home, "log", "--json", "--kind", "energy.label").stdout.splitlines()]
    assert fact["facts"]["per_1000_joules"] == told["per_thousand"]["joules"] and fact["facts"]["joules"] > 0
    said = ingle(home, "energy", "--label", "long", "--rounds", "1", "--threads", "1")
    assert json.loads(ingle(home, "show", "long", "--json").stdout)["energy_label"]["cores"] == 1
    assert "all tasks alike" in said.stdout and "not with its leaderboard" in said.stderr


def test_a_context_that_is_too_short_is_said(used_home: Path) -> None:
    assert "context" in ingle(used_home, "energy", "--label", "tiny", "--rounds", "1", code=2).stderr
    assert "energy " not in ingle(used_home, "show", "tiny").stdout


def test_check_and_doctor_name_the_sources(used_home: Path) -> None:
    if open_meter().rapl.state == "readable" or open_meter().batteries.folders:
        pytest.skip("would work for ten seconds")
    told = json.loads(ingle(used_home, "energy", "--check", "--json").stdout)
    assert [one["source"] for one in told["sources"]] == ["rapl", "battery", "model"] and told["check"] is None
    assert "nothing says how far the model is off" in ingle(used_home, "energy", "--check").stderr
    assert sum(len(prompts) for _, _, prompts in TASKS) == 25
