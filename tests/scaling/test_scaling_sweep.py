"""Sweeps: branches end as runs from the first step do, kills change nothing, plans and reports say what was run."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ingle.core.errors import ConfigError, HomeError, NotKept
from ingle.core.report import Event
from ingle.home.place import Home
from ingle.model.tokenizer import open_tokenizer
from ingle.scaling.climb import bits_of
from ingle.scaling.dealing import find_runner
from ingle.scaling.sweep import jobs_of, open_sweep, run_sweep
from ingle.scaling.sweep_settings import LEAST_STEPS, outcome, outcomes, runs_of
from ingle.scratch.first_model import new_module
from ingle.scratch.scratch_settings import config_of
from ingle.scratch.text_sources import held_out_of, held_out_texts, rows_of, rows_read
from tests.scaling.sweeps import STEP, alone, planned, tiny_sweep
from tests.waiting import PATIENCE_S, for_a_while, wait_until

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, long_texts: str) -> Home:
    """A home with a finished sweep."""
    home = Home(tmp_path_factory.mktemp("swept"))
    heard = list[Event]()
    sweep = planned(home, long_texts)
    run_sweep(home, sweep, sweep.runs, workers=2, sink=heard.append)
    assert [event.kind for event in heard] == ["scale"] * 6
    return home


def test_a_branch_ends_as_a_run_from_the_first_step(swept: Home, tmp_path: Path) -> None:
    sweep = open_sweep(swept, "small")
    reports = sweep.reports()
    assert len(reports) == 6
    branches = [report for report in reports if report["shared_steps"]]
    assert [report["tokens"] for report in branches] == [LEAST_STEPS * STEP] * 3
    for run in sweep.runs[:1]:
        by_itself = alone(run, sweep.prepared, tmp_path)
        report = sweep.report(run)
        assert report is not None
        shared = LEAST_STEPS - round(0.3 * LEAST_STEPS) + 1  # the first step of a cool-down is at full rate
        assert (by_itself["shared_steps"], report["shared_steps"]) == (0, shared)
        assert outcome(by_itself) == outcome(report)


def test_runs_learn_and_differ(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    losses = {(run.size, run.tokens, run.train.seed): report["loss"] for run, report in zip(sweep.runs, sweep.reports(), strict=True)}
    assert len(set(losses.values())) == 6
    assert max(losses.values()) < 3
    assert all(0 < abs(report["loss_int4"] - report["loss"]) < 0.1 * report["loss"] for report in sweep.reports())
    assert losses["2x32", 2 * LEAST_STEPS * STEP, 0] < losses["1x32", LEAST_STEPS * STEP, 0]


def test_bits_are_those_of_each_text_read_alone(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    held_out = held_out_of(sweep.prepared)
    module = new_module(config_of(sweep.runs[0].model, sweep.prepared.vocabulary), 3).eval()
    bits = bits_of(module, held_out)
    texts = held_out_texts(sweep.prepared)
    assert held_out.bytes.tolist() == [len(text.encode()) for text in texts]
    tokenizer = open_tokenizer(Path(sweep.prepared.folder))
    for number in (0, len(bits) - 1):
        alone = 0.0
        for row, counts in rows_read(tokenizer.encode_prompt(texts[number]), sweep.prepared.row_tokens):
            ids = torch.from_numpy(row.astype(np.int64))
            with torch.no_grad():
                logits = module(ids[None])[0].double()
            nats = -torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]
            alone += float(nats[torch.from_numpy(counts[1:])].sum())
        assert bits[number] == pytest.approx(alone / np.log(2), rel=1e-5)


@pytest.mark.parametrize("length", [2, 7, 8, 9, 20, 61])
def test_every_token_of_a_text_counts_once(length: int) -> None:
    ids = list(range(100, 100 + length))
    rows = rows_read(ids, 8)
    assert [token for row, counts in rows for token in row[counts].tolist()] == ids[1:]
    assert all(len(row) <= 8 and row[0] == ids[0] and not counts[0] for row, counts in rows)
    assert all(counts.sum() <= 4 for _, counts in rows[1:])


def test_finished_runs_are_files_that_anyone_can_refit(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    lines = (sweep.folder / "runs.csv").read_text().splitlines()
    assert lines[0].startswith("parameters,tokens,loss")
    assert len(lines) == 7
    assert {path.name for path in sweep.folder.iterdir()} == {"plan.json", "runs", "runs.csv", "texts", "work"}
    assert not [path for path in (sweep.folder / "work").iterdir() if path.is_dir()]
    bits = sweep.bits(sweep.runs[0])
    report = sweep.report(sweep.runs[0])
    assert report is not None
    assert bits.sum() / report["held_out_bytes"] == pytest.approx(report["loss"])


def test_a_finished_sweep_is_not_run_again(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    before = outcomes(sweep.reports())
    heard = list[Event]()
    assert outcomes(run_sweep(swept, sweep, sweep.runs, sink=heard.append)) == before
    assert not heard


def test_kills_of_workers_and_driver_change_nothing(swept: Home, tmp_path: Path, long_texts: str) -> None:
    """Kills a worker or the driver at random moments until the sweep is done."""
    home = Home(tmp_path / "killed")
    sweep = planned(home, long_texts)
    draw, kills = random.Random(4), 0
    program = (
        "import sys; from pathlib import Path; from ingle.home.place import Home; from ingle.scaling.sweep import open_sweep, run_sweep\n"
        "home = Home(Path(sys.argv[1])); sweep = open_sweep(home, 'small'); run_sweep(home, sweep, sweep.runs, workers=2)"
    )

    def so_far() -> bytes:
        path = sweep.folder / "progress.json"
        return path.read_bytes() if path.exists() else b""

    while len(sweep.reports()) < len(sweep.runs):
        driver = subprocess.Popen([sys.executable, "-c", program, str(home.root)], stderr=subprocess.DEVNULL)
        told = so_far()
        wait_until(lambda: so_far() != told or driver.poll() is not None, "a worker is at work")  # noqa: B023 - called at once
        for_a_while(draw.uniform(0.0, 1.0))
        if kills < 4 and driver.poll() is None:
            children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
            os.kill(driver.pid if kills % 2 == 0 else int(draw.choice(children)), signal.SIGKILL)
            kills += 1
        driver.wait(300)
    assert kills >= 2
    assert outcomes(sweep.reports()) == outcomes(open_sweep(swept, "small").reports())


def test_jobs_begin_with_the_longest_climb(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    jobs = jobs_of(sweep, sweep.runs)
    assert [len(job["runs"]) for job in jobs] == [2, 2, 2]
    assert jobs[0]["runs"][0]["size"] == "2x32"


def test_a_sweep_that_is_running_is_not_run_twice(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    with swept.lock("scaling-small"), pytest.raises(HomeError, match="in use"):
        run_sweep(swept, sweep, sweep.runs)


def test_names_and_runners_that_there_are_not(swept: Home, long_texts: str) -> None:
    for name, message in (("texts", "must not be texts"), ("../small", "letters, digits"), ("a/b", "letters, digits")):
        with pytest.raises(ConfigError, match=message):
            planned(swept, long_texts, name)
    with pytest.raises(ConfigError, match="letters, digits"):
        open_sweep(swept, "../small")
    for name in ("nowhere", "..prepared", "local.os"):
        with pytest.raises(ConfigError, match="must be one of local, ray"):
            find_runner(name)


def test_a_name_keeps_its_plan_once_it_has_runs(swept: Home, long_texts: str) -> None:
    assert planned(swept, long_texts).key == open_sweep(swept, "small").key
    with pytest.raises(ConfigError, match="has runs by another plan"):
        planned(swept, long_texts, rate=0.02)
    with pytest.raises(NotKept, match="is no sweep"):
        open_sweep(swept, "nothing")


def test_what_can_not_be_planned(home: Home, long_texts: str) -> None:
    for changes, message in (
        ({"tokens": [STEP]}, "150 steps"), ({"foretold_tokens": 10**6}, r"2x64, 1.00M tokens wants more text"),
        ({"sizes": ["big"]}, "LAYERSxWIDTH"), ({"kind": "hybrid"}, "two layers or more"),
        ({"sizes": ["2x32", "2x32"]}, "must be different"), ({"foretold_size": "1x32"}, "one of the sweep's own"),
        ({"data": {"sources": [long_texts], "pairs": 0.3}}, "two kinds"), ({"more_seeds": 3}, "0 to 2"), ({"epochs": 0.5}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            planned(home, long_texts, **changes)  # type: ignore[arg-type]


def test_few_different_tokens_are_the_first_rows(swept: Home) -> None:
    sweep = open_sweep(swept, "small")
    run = runs_of(replace(sweep.settings, epochs=40.0), sweep.prepared)[0]
    unique = run.unique
    assert unique == round(LEAST_STEPS * STEP / 40)
    assert run.label == "1x32, 0.01M tokens, 40 times, seed 0"
    assert list(rows_of(sweep.prepared, unique).train) == list(range(unique // 48))
    assert len(rows_of(sweep.prepared).train) > len(rows_of(sweep.prepared, unique).train)


def test_a_worker_without_a_driver_ends(swept: Home, tmp_path: Path) -> None:
    sweep = open_sweep(swept, "small")
    job = {**jobs_of(sweep, sweep.runs)[0], "work": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-P", "-m", "ingle.scaling.sweep_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({**job, "bytes": 0}).encode() + b"\n")
    process.stdin.flush()
    while b'"step"' not in process.stdout.readline():
        assert process.poll() is None
    process.stdin.close()
    process.stdout.read()
    process.stdout.close()
    process.wait(PATIENCE_S)
    assert list(tmp_path.glob("*/step-*/state.json"))


def test_settings_of_a_tiny_sweep_are_read_back(long_texts: str) -> None:
    from ingle.core.config import from_table, to_table
    from ingle.scaling.sweep_settings import SweepSettings

    settings = tiny_sweep(long_texts)
    assert from_table(SweepSettings, to_table(settings)) == settings


def test_the_report_reads_what_a_sweep_writes(swept: Home) -> None:
    from ingle.scaling.sheet import read_sheet, report_html

    sweep, sheet = open_sweep(swept, "small"), read_sheet(swept, "small")
    assert [run["key"] for run in sheet.runs] == [run.key for run in sweep.runs]
    assert (sheet.planned, sheet.progress, sheet.faults, sheet.foretold) == (6, {}, (), None)
    reports = sweep.reports()
    own = sum(report["seconds"] * (1 - report["shared_steps"] / report["steps"]) for report in reports)
    assert sheet.cost()[0] == pytest.approx(own) and sheet.cost()[1].joules > 0
    assert all(run.label in report_html(sheet) for run in sweep.runs)
