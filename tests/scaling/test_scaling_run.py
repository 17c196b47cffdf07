"""Whole trainings from scratch: every kind of model, what is kept, and what becomes of one that was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ingle.core.errors import ConfigError, HomeError, Interrupted
from ingle.core.report import Event
from ingle.engine.backend import prefill
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.base import base_report, read_base, verify_base
from ingle.home.kept import get_kept, list_kept, remove
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint
from ingle.model.module import load_module
from ingle.scratch import first_model
from ingle.scratch.scratch import scratch
from ingle.train.checkpoints import checkpoints
from ingle.train.loop_settings import TrainProgress
from ingle.train.loss_curve import Journal
from ingle.train.making import RunWatch
from tests.scaling.place import KINDS, tiny, write_texts
from tests.waiting import wait_until

pytestmark = pytest.mark.journey


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_trained_kept_and_served_as_pytorch_computes_it(home: Home, texts: str, kind: str) -> None:
    facts: list[Event] = []
    made = scratch(home, "little", tiny(texts, kind), command="ingle make train …", sink=facts.append)
    report = made.report
    assert report["train"]["loss"] < 0.9 * report["train"]["first_loss"]
    assert report["held_out"]["after"] < report["held_out"]["before"]
    assert report == base_report(home, made.kept.base) == json.loads(json.dumps(report))
    assert made.kept == get_kept(home, "little")
    assert verify_base(home, made.kept.base) == []
    assert made.plot.read_text("utf-8").startswith("<svg")
    assert not any(home.tuning.iterdir())
    checkpoint = open_checkpoint(home.base_folder(made.kept.base))
    assert checkpoint.config.is_transformer == (kind == "transformer")
    assert ("IngleForCausalLM" in (home.base_folder(made.kept.base) / "config.json").read_text()) == (kind != "transformer")
    model, module = open_model(kept_source(home, made.kept), "fp32", 1), load_module(checkpoint)
    ids = model.tokenizer.encode_prompt("Story 3. anna buys the apple. clara loses the drum and finds it")[:60]
    with torch.no_grad():
        expected = module(torch.tensor([ids]))[0, -1].numpy()
    np.testing.assert_allclose(prefill(model.backend, ids, model.backend.new_state()), expected, rtol=1e-3, atol=1e-3)
    served = {one["name"]: one for one in report["served"]}
    assert served["bits_per_byte"]["n"] == 5
    assert 0 < served["bits_per_byte"]["low"] <= served["bits_per_byte"]["value"] <= served["bits_per_byte"]["high"] < 8
    assert served["bits_per_byte"]["model_digest"] == model.digest
    assert [event.kind for event in facts] == ["train", "train.judge"]
    assert all(event.facts["base"] == made.kept.base for event in facts)


def test_the_same_again_is_the_same_and_costs_nothing(home: Home, texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scratch(home, "a", tiny(texts, "hybrid"))
    other = scratch(home, "c", tiny(texts, "hybrid", train={"seed": 1}))
    elsewhere = Home(home.root.parent / "other")
    assert scratch(elsewhere, "x", tiny(texts, "hybrid")).kept.base == first.kept.base != other.kept.base
    monkeypatch.setattr(first_model, "train_for", None)
    said: list[str] = []
    again = scratch(home, "a", tiny(texts, "hybrid"), RunWatch(say=said.append))
    assert again == first
    assert said == ["this model is trained already"]
    named = scratch(home, "b", tiny(texts, "hybrid"))
    assert named.kept.base == first.kept.base
    assert read_base(home, named.kept.base).source == "train:a"
    with pytest.raises(ConfigError, match="name a is taken by a model"):
        scratch(home, "a", tiny(texts, "hybrid", train={"seed": 1}))
    facts: list[Event] = []
    judged = scratch(home, "a", tiny(texts, "hybrid", judge={"items": 3}), sink=facts.append)
    assert judged.kept == first.kept and {one["n"] for one in judged.report["served"] if one["name"] == "bits_per_byte"} == {3}
    assert [event.kind for event in facts] == ["train", "train.judge"]
    assert base_report(home, first.kept.base) == {**judged.report, "model": "a"}
    with pytest.raises(ConfigError, match="must not hold '\\+'"):
        scratch(home, "a+b", tiny(texts))
    remove(home, "b")
    remove(home, "a")
    assert not home.base_folder(first.kept.base).exists()


def test_another_training_may_come_out_the_same(home: Home, texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scratch(home, "a", tiny(texts))
    other = tiny(texts, train={"evaluate_every": 3})
    with monkeypatch.context() as patch:
        patch.setattr("ingle.scratch.scratch.judge", lambda *_: (_ for _ in ()).throw(Interrupted("measurement", "was interrupted")))
        with pytest.raises(Interrupted):
            scratch(home, "b", other)
    monkeypatch.setattr(first_model, "train_for", None)  # nothing is trained again
    second = scratch(home, "b", other)
    assert second.kept.base == first.kept.base and second.report["finished"] and second.report["settings"]["train"]["evaluate_every"] == 3
    assert scratch(home, "a", tiny(texts)).kept == first.kept


def test_what_a_kill_took_before_the_curve_was_drawn_is_drawn(home: Home, texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_journal: Journal) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "draw", killed)
        scratch(home, "x", tiny(texts))
    assert scratch(home, "x", tiny(texts)).plot.exists()


def test_planted_pairs_are_measured(home: Home, tmp_path: Path) -> None:
    words = [f"{a}{b}ing" for a in ("bl", "cr", "dr", "gr", "pl", "st", "tr", "sw") for b in ("a", "e", "i", "o", "u", "ai", "ea", "oa")]
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(" ".join(words[(i * j) % 64] for j in range(1, 60)), "utf-8")
    settings = tiny(str(tmp_path), "hybrid", data={"row_tokens": 96, "pairs": 0.3}, tokenizer={"size": 380})
    report = scratch(home, "p", settings).report
    recalled = [one for one in report["served"] if one["of"] == "planted pairs"]
    assert [one["name"] for one in recalled][:2] == ["recalled", "recalled_to_64"]
    assert recalled[0]["n"] == sum(one["n"] for one in recalled[1:])
    assert report["rows"] > report["row_tokens"] / 96


def test_what_is_wrong_is_said_before_anything_is_computed(home: Home, texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_model, "new_module", None)
    with pytest.raises(ConfigError, match="see nothing"):
        scratch(home, "x", tiny(texts, model={"retrieval": "none", "window": 0}))
    with pytest.raises(ConfigError, match="that the text has use for"):
        scratch(home, "x", tiny(texts, tokenizer={"size": 9000}))
    with pytest.raises(ConfigError, match=r"model\.parameters must be at least"):
        scratch(home, "x", tiny(texts, model={"mlp": 0, "parameters": 10}))
    with pytest.raises(ConfigError, match="is not there"):
        scratch(home, "x", tiny(str(tmp_path / "none.txt")))
    assert list_kept(home) == []


def test_told_to_stop_it_goes_on_later(home: Home, texts: str) -> None:
    def stop(at: TrainProgress) -> None:
        if at.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="after step 5"):
        scratch(home, "x", tiny(texts, "hybrid"), RunWatch(train=stop))
    assert list_kept(home) == []
    steps: list[int] = []
    made = scratch(home, "x", tiny(texts, "hybrid"), RunWatch(train=lambda at: steps.append(at.step)))
    assert steps[0] == 6
    assert made.kept.base == scratch(Home(home.root.parent / "other"), "x", tiny(texts, "hybrid")).kept.base


def test_measuring_goes_on_too(home: Home, texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise Interrupted("measurement", "was interrupted")

    facts: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr("ingle.scratch.scratch.judge", broken)
        with pytest.raises(Interrupted):
            scratch(home, "x", tiny(texts), sink=facts.append)
    assert [event.kind for event in facts] == ["train"]
    told = base_report(home, get_kept(home, "x").base)
    assert told is not None
    assert told["finished"] is False
    monkeypatch.setattr(first_model, "train_for", None)
    made = scratch(home, "x", tiny(texts))
    assert made.report["finished"] is True
    assert made.report["served"]
    (home.base_folder(made.kept.base) / "report.json").unlink()
    with pytest.raises(HomeError, match="must have the report"):
        scratch(home, "x", tiny(texts))


SCRIPT = """
import sys
import threading
from pathlib import Path
import torch
torch.set_num_threads(1)
from ingle.home.place import Home
from ingle.scratch.scratch import scratch
from ingle.train.making import RunWatch
from tests.scaling.place import tiny
settings = tiny(sys.argv[2], "hybrid", train={"checkpoint_every": 1, "max_steps": 40, "precision": "bf16"})
def hold(progress):
    if progress.step == int(sys.argv[3]):
        threading.Event().wait()
print(scratch(Home(Path(sys.argv[1])), "killed", settings, RunWatch(train=hold)).kept.base)
"""


def in_a_process(home: Path, texts: str, held: int = 0) -> "subprocess.Popen[str]":
    """`held`: the step at which it waits to be killed."""
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(home), texts, str(held)], cwd=root, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    texts, killed = write_texts(tmp_path / "texts.jsonl"), tmp_path / "killed"
    undisturbed = in_a_process(tmp_path / "whole", texts)
    reached = []
    for least in (1, 15):
        process = in_a_process(killed, texts, held=least + 10)

        def far_enough(least: int = least) -> bool:
            found = [path for folder in (killed / "tuning").glob("scratch-*/[0-9a-f]*") for path in checkpoints(folder)]
            return bool(found) and int(found[-1].name[5:]) >= least

        wait_until(lambda: far_enough() or process.poll() is not None, f"step {least}")  # noqa: B023 - called at once
        process.kill()
        process.communicate()
        reached.append(max(int(path.name[5:]) for path in (killed / "tuning").glob("scratch-*/*/step-*")))
        assert list_kept(Home(killed)) == []
    assert reached[0] < reached[1] < 40, "nothing was interrupted"
    whole, _ = undisturbed.communicate()
    process = in_a_process(killed, texts)
    ended, _ = process.communicate()
    assert process.returncode == undisturbed.returncode == 0
    assert ended == whole
    assert len(ended.strip()) == 64
