"""`ingle scale` from an empty home: plan, run, fit, check; the prediction stands in the ledger before its run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.ledger.row import Row
from ingle.scaling.foretold import order_faults
from tests.cli.place import environment, ingle
from tests.scaling.sweeps import tiny_sweep
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a sweep that takes seconds."""
    texts = str(Path(__file__).parents[2] / "docs")
    settings = tiny_sweep(texts)
    path = tmp_path_factory.mktemp("plan") / "tiny.toml"
    path.write_text(
        f"""vocabulary = {settings.vocabulary}
kind = "transformer"
sizes = ["1x32", "2x32"]
tokens = {list(settings.tokens)}
more_seeds = 1
foretold_size = "2x64"
foretold_tokens = {settings.foretold_tokens}
batch_tokens = {settings.batch_tokens}
rate = 0.01
precision = "fp32"
[data]
sources = ["{texts}"]
row_tokens = 48
held_out = 0.2
"""
    )
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, plan_file: Path) -> Path:
    """A home with a finished sweep that nothing was foretold of yet."""
    home = tmp_path_factory.mktemp("scale")
    planned = ingle(home, "scale", "plan", "small", "--config", str(plan_file), "--json")
    assert len(json.loads(planned.stdout)["runs"]) == 6
    ran = ingle(home, "scale", "run", "small", "--yes", "--json")
    assert len(json.loads(ran.stdout)) == 6
    return home


@pytest.fixture
def home(swept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(swept, tmp_path / "home")
    return tmp_path / "home"


def test_a_run_is_foretold_then_trained_then_checked(home: Path) -> None:
    too_early = ingle(home, "scale", "check", "small", code=2)
    assert "only after its loss was foretold" in too_early.stderr
    assert "ingle scale fit small" in too_early.stderr
    said = ingle(home, "scale", "fit", "small")
    assert "This prediction is signed" in said.stderr
    again = ingle(home, "scale", "fit", "small", "--json")
    prediction = json.loads(again.stdout)["prediction"]
    assert prediction["low"] < prediction["loss"] < prediction["high"]
    checked = ingle(home, "scale", "check", "small", "--yes", "--json")
    facts = json.loads(checked.stdout)
    assert facts["inside"] == (prediction["low"] <= facts["came"] <= prediction["high"])
    kinds = [row["kind"] for row in log(home)]
    assert kinds.count("scale.predict") == 1
    assert kinds[-4:] == ["scale.check", "scale", "scale.begin", "scale.predict"][::-1]
    ingle(home, "verify")
    later = ingle(home, "scale", "fit", "small")
    assert "stands" in later.stderr
    listed = ingle(home, "scale", "list")
    assert "small" in listed.stdout
    assert f"{facts['came']:.4f}" in listed.stdout


def test_a_run_that_was_begun_first_proves_nothing(home: Path) -> None:
    ingle(home, "scale", "fit", "small")
    ingle(home, "scale", "check", "small", "--yes")
    rows = [Row(one["seq"], one["at"], one["kind"], one["subject"], json.dumps(one["facts"]), "", one["hash"], "") for one in log(home)]
    rows = [row for row in rows if row.kind.startswith("scale")]
    assert order_faults(rows) == []
    predict = next(row for row in rows if row.kind == "scale.predict")
    [without] = order_faults([row for row in rows if row is not predict])
    assert "no prediction of its run stands before it" in without[1]
    late = [row for row in rows if row is not predict]
    late.insert(-1, Row(late[-1].seq - 1, predict.at, predict.kind, predict.subject, predict.facts, "", predict.hash, ""))
    [begun] = order_faults(late)
    assert "before it was foretold" in begun[1]
    check = rows[-1]
    other = json.dumps(check.values | {"low": 0.0})
    [figures] = order_faults([*rows[:-1], Row(check.seq, check.at, check.kind, check.subject, other, "", check.hash, "")])
    assert "other figures" in figures[1]


def test_a_foretold_run_that_fails_can_be_trained_later(home: Path) -> None:
    said = json.loads(ingle(home, "scale", "fit", "small", "--json").stdout)["prediction"]
    in_the_way = home / "scaling" / "small" / "work" / said["key"]
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("no folder")
    failed = ingle(home, "scale", "check", "small", "--yes", code=6)
    assert said["key"] in failed.stderr
    assert [row["kind"] for row in log(home)][-1] == "scale.begin"
    assert "stands" in ingle(home, "scale", "fit", "small").stderr
    in_the_way.unlink()
    facts = json.loads(ingle(home, "scale", "check", "small", "--yes", "--json").stdout)
    assert facts["loss"] == said["loss"]
    ingle(home, "verify")


def test_a_run_that_was_begun_before_is_not_foretold(home: Path) -> None:
    plan = json.loads((home / "scaling" / "small" / "plan.json").read_text())
    (home / "scaling" / "small" / "work" / plan["foretold"]["key"]).mkdir(parents=True)
    assert "nothing is signed" in ingle(home, "scale", "fit", "small").stderr
    assert "scale.predict" not in [row["kind"] for row in log(home)]
    assert "only after its loss was foretold" in ingle(home, "scale", "check", "small", code=2).stderr
    wrong = ingle(home, "scale", "check", "small", "--runner", "nowhere", code=2)
    assert "must be one of local, ray" in wrong.stderr


def test_a_kill_between_the_ledger_and_the_report_counts_a_run_once(home: Path) -> None:
    before = [row for row in log(home) if row["kind"] == "scale"]
    path = next((home / "scaling" / "small" / "runs").iterdir())
    path.unlink()
    ingle(home, "scale", "run", "small", "--yes")
    assert path.exists()
    assert [row for row in log(home) if row["kind"] == "scale"] == before


def test_ctrl_c_leaves_no_process_and_loses_nothing(swept: Path, tmp_path: Path, plan_file: Path) -> None:
    home = tmp_path / "stopped"
    ingle(home, "scale", "plan", "small", "--config", str(plan_file))
    environment = {**os.environ, "INGLE_HOME": str(home)}
    process = subprocess.Popen([sys.executable, "-m", "ingle", "scale", "run", "small", "--yes"], env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    wait_until(lambda: process.poll() is not None or list((home / "scaling" / "small").glob("work/*/loss.csv")), "a run has begun")
    assert process.poll() is None
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    text = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 130
    assert "Run the same command to go on" in text
    assert workers
    assert not [one for one in workers if Path(f"/proc/{one}").exists()]
    ingle(home, "scale", "run", "small", "--yes")
    outcomes = [{line.split(",")[2] for line in (one / "scaling/small/runs.csv").read_text().splitlines()} for one in (swept, home)]
    assert outcomes[0] == outcomes[1]


def test_plans_keep_to_the_budget(home: Path, plan_file: Path) -> None:
    over = ingle(home, "scale", "plan", "other", "--config", str(plan_file), "--budget", "1J", code=2)
    assert "costs" in over.stderr
    assert "more than the budget of 1.00 J" in over.stderr
    assert not (home / "scaling" / "other").exists()
    for words in (["--budget", "3 apples"], ["--budget", "1..2min"], ["--minutes", "0"]):
        wrong = ingle(home, "scale", "plan", "other", "--config", str(plan_file), *words, code=2)
        assert "For example 30min" in wrong.stderr
    missing = ingle(home, "scale", "run", "nothing", code=3)
    assert "is no sweep of this home" in missing.stderr


def test_too_few_runs(swept: Path, tmp_path: Path, plan_file: Path) -> None:
    ingle(swept, "scale", "plan", "empty", "--config", str(plan_file))
    early = ingle(swept, "scale", "fit", "empty", code=2)
    assert "has no finished runs" in early.stderr


def test_runs_are_in_the_energy_account_once(home: Path) -> None:
    rows = [row for row in log(home) if row["kind"] == "scale"]
    reports = [json.loads(path.read_text()) for path in (home / "scaling" / "small" / "runs").iterdir()]
    shares = {one["key"]: 1 - one["shared_steps"] / one["steps"] for one in reports}
    for row in rows:
        report = next(one for one in reports if one["key"] == row["facts"]["key"])
        assert row["facts"]["joules"] == pytest.approx(report["energy"]["joules"] * shares[report["key"]], rel=1e-4)
    assert sorted(shares.values())[0] < 0.35


def log(home: Path) -> list[dict[str, object]]:
    """Facts of the home, oldest first."""
    lines = ingle(home, "log", "--json", "-n", "100").stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_a_plan_without_pytorch_says_what_it_needs(tmp_path: Path) -> None:
    program = "import sys\nsys.modules['torch'] = None\nfrom ingle.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    for arguments in (["scale", "plan", "--minutes", "20"], ["scale", "run", "law"]):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(tmp_path))
        assert "which is not installed. Run: " in done.stderr
        assert (done.returncode, "bug" in done.stderr) == (2, False)
