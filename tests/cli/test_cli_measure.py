"""`ingle measure`: the list, the table, JSON, files, the ledger, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.measure.suites import SUITES
from tests.cli.place import environment, ingle
from tests.measure.test_run import BITS, CHOICE, WRITE
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def _suites(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in (BITS, CHOICE, WRITE):
        monkeypatch.setitem(SUITES, suite.name, suite)


def test_without_a_suite_they_are_listed(tiny_home: Path) -> None:
    listed = ingle(tiny_home, "measure").stdout
    assert all(name in listed for name in SUITES)
    told = json.loads(ingle(tiny_home, "measure", "--json").stdout)
    assert {entry["name"]: entry["higher_is_better"] for entry in told}["wiki-bits"] is False


def test_a_table_with_intervals_and_a_fact_in_the_ledger(tiny_home: Path) -> None:
    done = ingle(tiny_home, "measure", "tiny", "--suite", "wiki-bits")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["figure", "value", "interval", "n"]
    assert lines[0].startswith("wiki-bits: bits_per_byte ")
    assert "…" in lines[0]
    assert "conditional on <|endoftext|>" in done.stderr
    event = json.loads(ingle(tiny_home, "log", "--json", "--kind", "measure", "--last", "1").stdout)
    told = json.loads(ingle(tiny_home, "measure", "tiny", "--suite", "wiki-bits", "--json").stdout)
    assert event["facts"]["value"] == told["reports"][0]["value"]
    assert event["facts"]["data_digest"] == told["data_digest"]
    assert event["subject"] == "tiny"


def test_several_suites_at_once(tiny_home: Path) -> None:
    told = json.loads(
        ingle(tiny_home, "measure", "--suite", "boolq", "--suite", "debian-fr", "--items", "3", "--shots", "1", "--json").stdout
    )
    assert [table["suite"] for table in told] == ["boolq", "debian-fr"]
    assert all(report["n"] == 3 for table in told for report in table["reports"])
    assert told[0]["options"] == {"items": 3, "shots": 1, "style": None, "seed": 0}


def test_before_and_after(tiny_home: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    ingle(tiny_home, "measure", "--suite", "wiki-bits", "--format", "fp32", "--out", str(before))
    assert len(json.loads(before.read_text("utf-8"))["rows"]) == 10
    told = json.loads(ingle(tiny_home, "measure", "--suite", "wiki-bits", "--format", "int8", "--against", str(before), "--json").stdout)
    change = told["reports"][-2]
    assert (change["name"], change["n"]) == ("forgetting", 10)
    assert change["value"] != 0
    assert told["model_digest"] != json.loads(before.read_text("utf-8"))["model_digest"]


def test_a_file_may_be_compared_with_and_written_to(tiny_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    ingle(tiny_home, "measure", "--suite", "wiki-bits", "--format", "fp32", "--out", str(file))
    before = json.loads(file.read_text("utf-8"))["model_digest"]
    ingle(tiny_home, "measure", "--suite", "wiki-bits", "--format", "int8", "--out", str(file), "--against", str(file))
    now = json.loads(file.read_text("utf-8"))
    assert now["model_digest"] != before
    assert next(report for report in now["reports"] if report["name"] == "forgetting")["value"] != 0


def test_what_can_not_be_measured(tiny_home: Path, tmp_path: Path) -> None:
    assert "Did you mean boolq" in ingle(tiny_home, "measure", "--suite", "bolq", code=3).stderr
    assert "must be 'texts' or 'letters'" in ingle(tiny_home, "measure", "--suite", "boolq", "--style", "numbers", code=2).stderr
    assert "below 0" in ingle(tiny_home, "measure", "--suite", "boolq", "--items", "-1", code=2).stderr
    assert "one suite" in ingle(tiny_home, "measure", "--suite", "boolq", "--suite", "piqa", "--out", "x", code=2).stderr
    missing = tmp_path / "none.json"
    assert "--out" in ingle(tiny_home, "measure", "--suite", "wiki-bits", "--against", str(missing), code=2).stderr
    assert "not kept" in ingle(tiny_home, "measure", "nobody", "--suite", "wiki-bits", code=3).stderr


SLOW = """
import sys
from dataclasses import replace
from ingle.measure.suites import SUITES
from tests.measure.test_run import BITS
from ingle.measure.data_sets import Text
SUITES["wiki-bits"] = replace(BITS, items=0, read=lambda *_: [Text(str(i), str(i), f"{i} word" * 25) for i in range(6000)])
from ingle.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.journey
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_keeps_what_is_finished(own_home: Home) -> None:
    command = [sys.executable, "-c", SLOW, "measure", "--suite", "wiki-bits", "--items", "0"]
    finished = own_home.root / "cache" / "measure"

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in finished.glob("*.jsonl")) if finished.exists() else 0

    def stop(least: int) -> str:
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(own_home.root)
        ) as process:
            wait_until(lambda: lines() >= least or process.poll() is not None, f"{least} texts are finished")
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, told
        return told

    told = stop(20)
    kept = lines()
    assert f"({kept} of" in told
    assert "to go on from there" in told
    assert f"got {kept} of" not in stop(kept + 20)
    assert lines() > kept
    log = ingle(own_home.root, "log", "--kind", "measure").stdout
    assert "wiki-bits" not in log  # nothing was measured to its end
