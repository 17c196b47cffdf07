"""A run says what it took: of all its sittings together, measured where it can be."""

import dataclasses
import os
import signal
from pathlib import Path

from ingle.core.energy import reported
from ingle.train.checkpoints import load_checkpoint
from ingle.train.loop_settings import TrainWatch
from tests.train.test_train_loop import change, run


def test_a_run_tells_its_joules_and_a_finished_one_the_same_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path, change(max_steps=6))
    assert 0 < first.energy.low <= first.energy.joules <= first.energy.high and first.energy.source
    second, _ = run(tmp_path, change(max_steps=6))
    assert second.energy == first.energy
    assert reported(dataclasses.asdict(first)) == first.energy


def test_what_earlier_sittings_took_is_in_it(tmp_path: Path) -> None:
    stop = TrainWatch(lambda progress: os.kill(os.getpid(), signal.SIGINT) if progress.step == 4 else None)
    first, _ = run(tmp_path, change(max_steps=8), watch=stop)
    kept = load_checkpoint(tmp_path)
    assert first.stopped == "interrupted" and kept is not None and kept[0].energy == first.energy
    second, _ = run(tmp_path, change(max_steps=8))
    assert second.stopped == "finished" and second.energy.joules > first.energy.joules > 0
