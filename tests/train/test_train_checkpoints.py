"""Checkpoints are read back as they were written."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.train.checkpoints import BEST, TRAINED, TrainingState, checkpoints, load_checkpoint, save_checkpoint, sweep_checkpoints
from ingle.train.loss_curve import Journal


def test_state_without_held_out_data_is_read_back(tmp_path: Path) -> None:
    state = TrainingState("run", "fp32", step=3, tokens=30, first_loss=2.5, loss=1.5)
    save_checkpoint(tmp_path, state, {"a": torch.ones(2)}, {"m": torch.zeros(2)})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == state
    assert torch.equal(found[1]["a"], torch.ones(2))


def test_what_a_killed_run_had_begun_to_write_is_gone_when_it_goes_on(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, TrainingState("run", "fp32", step=3), {}, {})
    (tmp_path / BEST).mkdir()
    (tmp_path / ".step-00000004.part").mkdir()
    cut_off = [
        ".step-00000004.part/state.json",
        f".{TRAINED}.x1.part",
        f"{BEST}/.{TRAINED}.x2.part",
        ".loss.csv.x3.part",
        ".loss.svg.x4.part",
    ]
    for name in (*cut_off, ".somebody-elses.part"):
        (tmp_path / name).write_bytes(b"half")
    sweep_checkpoints(tmp_path)
    Journal(tmp_path, 3)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [
        ".somebody-elses.part",
        "loss.csv",
        *(f"step-00000003/{name}" for name in ("optimiser.safetensors", "state.json", TRAINED)),
    ]


def test_half_a_checkpoint_that_was_being_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (3, 4):
        save_checkpoint(tmp_path, TrainingState("run", "fp32", step=step), {"a": torch.full((2,), step)}, {})

    def killed(folder: Path, **_: object) -> None:
        if not folder.name.startswith("."):
            (folder / TRAINED).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("ingle.train.checkpoints.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, TrainingState("run", "fp32", step=5), {"a": torch.ones(2)}, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]
    monkeypatch.undo()
    for whole in checkpoints(tmp_path):
        shutil.rmtree(whole)
    save_checkpoint(tmp_path, TrainingState("run", "fp32", step=3), {"a": torch.zeros(2)}, {})  # over what is left of it
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]


def test_a_step_that_is_saved_again_is_never_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainingState("run", "fp32", step=4)
    save_checkpoint(tmp_path, state, {"a": torch.ones(2)}, {})

    def died(*_: object) -> None:
        assert load_checkpoint(tmp_path) is not None
        raise KeyboardInterrupt

    monkeypatch.setattr("ingle.train.checkpoints.write_atomic", died)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, replace(state, stopped="finished"), {"a": torch.ones(2)}, {})
    found = load_checkpoint(tmp_path)
    assert found is not None and found[0] == state
    monkeypatch.undo()
    monkeypatch.setattr("ingle.train.checkpoints.shutil.rmtree", lambda *_, **__: pytest.fail("nothing is taken away"))
    save_checkpoint(tmp_path, replace(state, stopped="finished"), {"a": torch.ones(2)}, {})
    found = load_checkpoint(tmp_path)
    assert found is not None and found[0].stopped == "finished" and torch.equal(found[1]["a"], torch.ones(2))
