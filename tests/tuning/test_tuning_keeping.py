"""Examples that a tune keeps: which was in which step, and their sketches; it changes nothing in what is learnt."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError, HomeError, Interrupted
from ingle.home.deltas import delta_tensors
from ingle.home.kept import remove
from ingle.home.place import Home
from ingle.train.by_document import SIZE
from ingle.train.corpus import EXAMPLES, KeptSettings, read_kept
from ingle.train.making import RunWatch
from tests.tuning.place import small, tuned, write_examples


def test_beside_the_delta_stands_which_example_was_in_which_step(tiny_home: Home, tmp_path: Path) -> None:
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small())
    path = tiny_home.delta_folder(done.delta.digest) / EXAMPLES
    table = done.report["kept_examples"]
    left = read_kept(path, table["sha256"])
    assert len(left.steps) == done.report["train"]["steps"]
    assert len(left.train) == done.report["examples"]
    assert left.corpus.digest == done.report["data_digest"]
    counts = np.bincount([example for members in left.steps for example in members], minlength=len(left.corpus))
    assert counts.tolist() == [2 if example in left.train else 0 for example in range(len(left.corpus))], "two epochs"
    assert all(example in left.steps[number - 1] for example in left.train for number in left.steps_of(example))
    assert left.sketches is not None
    assert left.sketches.shape == (len(left.train), SIZE)
    assert np.linalg.norm(left.sketches.astype(float), axis=1) == pytest.approx(1, abs=0.01)
    assert table["bytes"] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_changes_no_byte_of_what_is_learnt(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    done = tuned(tiny_home, data, small())
    tensors = delta_tensors(tiny_home, done.delta)
    remove(tiny_home, "tiny+x")
    assert not tiny_home.delta_folder(done.delta.digest).exists(), "what was kept went with the delta"
    bare = tuned(tiny_home, data, replace(small(), examples=KeptSettings(keep=False)))
    assert bare.report["kept_examples"] == {}
    assert not (tiny_home.delta_folder(bare.delta.digest) / EXAMPLES).exists()
    assert all(np.array_equal(tensors[name], value) for name, value in delta_tensors(tiny_home, bare.delta).items())
    assert bare.delta.origin["settings"] == done.delta.origin["settings"]
    assert bare.delta.origin["run"] == done.delta.origin["run"]


def test_a_damaged_or_missing_file_is_said(tiny_home: Home, tmp_path: Path) -> None:
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small())
    path = tiny_home.delta_folder(done.delta.digest) / EXAMPLES
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(HomeError, match="not as it was written"):
        read_kept(path, done.report["kept_examples"]["sha256"])
    path.unlink()
    with pytest.raises(HomeError, match="gone"):
        read_kept(path, done.report["kept_examples"]["sha256"])


def test_it_is_the_same_after_a_stop(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    whole = tuned(tiny_home, data, small())
    wanted = (tiny_home.delta_folder(whole.delta.digest) / EXAMPLES).read_bytes()
    remove(tiny_home, "tiny+x")

    def stop(_progress: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="after step 1"):
        tuned(tiny_home, data, small(), watch=RunWatch(train=stop))
    with pytest.raises(Interrupted, match="after the last step"):
        tuned(tiny_home, data, small(), watch=RunWatch(pieces=lambda what, *_: stop(what) if "sketching" in what else None))
    done = tuned(tiny_home, data, small())
    assert done.delta.tensors == whole.delta.tensors
    assert (tiny_home.delta_folder(done.delta.digest) / EXAMPLES).read_bytes() == wanted


def test_too_many_examples_keep_nothing(tiny_home: Home, tmp_path: Path) -> None:
    few = replace(small(), examples=KeptSettings(most=10))
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), few)
    assert done.report["kept_examples"] == {}
    with pytest.raises(ConfigError, match="must not be negative"):
        KeptSettings(most=-1)
