"""A home's learning in a round, by the worker's own process: equal tasks give equal bytes, errors come back, nothing outlives who asked."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.apart import write_message
from ingle.core.errors import ConfigError, HomeError
from ingle.federated.aggregate import first_factors
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.train.by_document import clipped_sum
from ingle.train.corpus import Corpus
from ingle.train.loop import train
from ingle.train.packing import Data
from ingle.tuning import homework_training, homework_worker
from ingle.tuning.homework import TASK, HeldOutExample, Homework, HomeworkDone, Learning, check_learning, do_apart, read_done, write_done
from ingle.tuning.homework_training import do_homework
from tests.cli.place import write_model
from tests.waiting import PATIENCE_S, for_a_while

LINEARS = {"model.layers.0.mlp.up_proj": (96, 64), "model.layers.1.self_attn.o_proj": (64, 64)}
FACTORS = first_factors(LINEARS, 2, 5)
B = tuple(sorted(name for name in FACTORS if "lora_B" in name))
LEARNING = Learning(rate=3e-3, steps=3, batch_tokens=128)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Homework:
    folder = tmp_path_factory.mktemp("homework")
    home = Home(folder / "home")
    pull(home, str(write_model(folder / "tiny")), lambda _: None, "tiny")
    data = folder / "own.jsonl"
    rows = [{"prompt": f"What is {i}?", "completion": f"it is {i * i}"} for i in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Homework(str(home.root), get_kept(home, "tiny"), (str(data),), LEARNING, B)


def test_another_process_learns_what_this_one_would(task: Homework, tmp_path: Path) -> None:
    done = do_apart(task, FACTORS, tmp_path / "work")
    here = do_homework(task, FACTORS, tmp_path / "here")
    assert done.tensors.keys() == here.tensors.keys() == set(B), "A stays as it was and isn't sent back"
    for name in B:
        assert done.tensors[name].dtype == np.float32 and (done.tensors[name] != FACTORS[name]).any()
        assert np.array_equal(done.tensors[name], here.tensors[name])
    assert len(done.held_out) == 12 and [one.ids for one in done.held_out] == [one.ids for one in here.held_out]
    assert not (tmp_path / "work").exists()
    other = do_homework(replace(task, seed=1), FACTORS, tmp_path / "other")
    assert any((other.tensors[name] != here.tensors[name]).any() for name in B)
    assert [one.ids for one in other.held_out] == [one.ids for one in here.held_out], "who is held out follows from the content alone"


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_nothing_is_learned_from_what_a_vote_reads(task: Homework, clip: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = list[tuple[int, ...]]()

    def watched(corpus: Corpus, chosen: Sequence[int]) -> None:
        learned.extend(tuple(corpus.document(one).ids.tolist()) for one in chosen)

    def trained(module: Any, parameters: Any, data: Data, settings: Any, folder: Path) -> Any:
        watched(data.corpus, data.train)
        assert not data.held_out
        return train(module, parameters, data, settings, folder)

    def summed(module: Any, parameters: Any, corpus: Corpus, chosen: Sequence[int], longest: float, batch_tokens: int) -> Any:
        watched(corpus, chosen)
        return clipped_sum(module, parameters, corpus, chosen, longest, batch_tokens)

    monkeypatch.setattr(homework_training, "train", trained)
    monkeypatch.setattr(homework_training, "clipped_sum", summed)
    done = do_homework(replace(task, clip=clip), FACTORS, tmp_path)
    held_out = {one.ids for one in done.held_out}
    assert held_out and not held_out & set(learned) and len(held_out) + len(learned) == 60


def test_with_a_length_it_gives_the_sum_of_cut_gradients(task: Homework, tmp_path: Path) -> None:
    private = replace(task, clip=1e-3, share=1.0)
    done = do_homework(private, FACTORS, tmp_path)
    row = np.concatenate([done.tensors[name].reshape(-1) for name in B])
    count = 60 - len(done.held_out)
    assert all(done.tensors[name].dtype == np.float64 for name in B) and 0 < np.linalg.norm(row) <= 1e-3 * count
    again = do_homework(private, FACTORS, tmp_path)
    assert all(np.array_equal(again.tensors[name], done.tensors[name]) for name in B), "all are drawn, so nothing is left to chance"
    halves = [do_homework(replace(private, share=0.5), FACTORS, tmp_path).tensors[B[0]] for _ in range(2)]
    assert not np.array_equal(*halves), "others are drawn each time"


def test_errors_come_back_as_they_were(task: Homework, tmp_path: Path) -> None:
    for change, kind, match in (
        ({"sources": ("/nowhere.jsonl",)}, ConfigError, "/nowhere.jsonl is not there"),
        ({"sources": ()}, ConfigError, "data must be named"),
    ):
        with pytest.raises(kind, match=match):
            do_apart(replace(task, **change), FACTORS, tmp_path / "work")  # type: ignore[arg-type]
        assert not (tmp_path / "work").exists()


def test_a_process_that_is_killed_is_an_error_with_a_cure(task: Homework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(HomeError, match=r"The process that learns has ended \(exit code 1\)\. Try again"):
        do_apart(task, FACTORS, tmp_path / "work")


def test_it_waits_for_its_turn_and_ends_with_who_asked(task: Homework, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / TASK).write_bytes(b"{}")
    with homework_worker.alone():
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ingle.tuning.homework_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        write_message(process.stdin, {"call": "learn", "folder": str(work)})
        for_a_while(1.5)
        assert process.poll() is None, "another one learns"
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 1, "nobody waits for it any more"
        process.stdout.close()


def test_a_folder_of_somebody_elses_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homework_worker.tempfile, "gettempdir", lambda: str(tmp_path))
    mine = tmp_path / f"ingle-{os.getuid()}"
    with homework_worker.alone():
        assert (mine / "learning.lock").exists()
    mine.rename(tmp_path / "elsewhere")
    mine.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "learning.lock").unlink()
    with homework_worker.alone():
        assert not (tmp_path / "elsewhere" / "learning.lock").exists()


def test_results_come_back_whole_or_are_refused(tmp_path: Path) -> None:
    examples = (HeldOutExample((5, 6, 7), (False, True, True)), HeldOutExample((1, 2), (False, True)))
    path = tmp_path / "done.safetensors"
    write_done(path, HomeworkDone({"a": np.ones(2)}, examples))
    done = read_done(path)
    assert [(one.ids, one.counted) for one in done.held_out] == [(one.ids, one.counted) for one in examples]
    assert done.tensors.keys() == {"a"} and path.stat().st_mode & 0o077 == 0
    write_done(path, HomeworkDone({}, ()))
    assert read_done(path).held_out == ()
    path.write_bytes(b"nothing")
    with pytest.raises(HomeError, match="must hold what was learned"):
        read_done(path)


@pytest.mark.parametrize(
    "change", [{"rate": 0.0}, {"rate": float("nan")}, {"steps": 0}, {"batch_tokens": 1}, {"precision": "auto"}, {"template": "none"}]
)
def test_settings_that_mean_nothing(change: dict[str, object]) -> None:
    check_learning(Learning())
    with pytest.raises(ConfigError, match=f"learning.{next(iter(change))} must"):
        check_learning(replace(Learning(), **change))  # type: ignore[arg-type]
