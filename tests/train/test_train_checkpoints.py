"""Checkpoints are read back as they were written."""

from pathlib import Path

import torch

from ingle.train.checkpoints import State, load_checkpoint, save_checkpoint


def test_state_without_held_out_data_is_read_back(tmp_path: Path) -> None:
    state = State("run", "fp32", step=3, tokens=30, first_loss=2.5, loss=1.5)
    save_checkpoint(tmp_path, state, {"a": torch.ones(2)}, {"m": torch.zeros(2)})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == state
    assert torch.equal(found[1]["a"], torch.ones(2))
