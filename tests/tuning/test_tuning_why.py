"""Which examples of a tune an answer rests on: proposals by likeness, and proofs by training again without them."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import ConfigError, HomeError, Interrupted, NotKept
from ingle.home.deltas import delta_tensors
from ingle.home.kept import get_kept, remove
from ingle.home.place import Home
from ingle.train.corpus import EXAMPLES, KeptSettings
from ingle.train.loop_settings import TrainWatch
from ingle.train.making import MadeDelta, RunWatch
from ingle.tuning.influence import proposed, proved, traced
from ingle.tuning.tune_settings import TuneSettings
from tests.tuning.place import kept, small, tuned, write_examples

pytestmark = pytest.mark.journey

RATE = {
    "optimiser": {"learning_rate": 3e-3, "eps": 1e-3}, "schedule": {"warm_up": 0.3}, "epochs": 3, "batch_tokens": 192, "precision": "fp32",
}  # fmt: skip


def made(home: Home, folder: Path, settings: TuneSettings | None = None) -> MadeDelta:
    return tuned(home, write_examples(folder / "data.jsonl"), settings or small(train=RATE))


def tokens(home: Home, done: MadeDelta, number: int) -> tuple[list[int], list[int]]:
    """Prompt and answer of an example."""
    examples = traced(home, done.kept).examples
    document = examples.corpus.document(examples.train[number])
    return document.ids[: int(document.answer.argmax())].tolist(), document.ids[document.answer].tolist()


def test_the_example_itself_is_the_most_alike_and_its_line_is_named(tiny_home: Home, tmp_path: Path) -> None:
    done = made(tiny_home, tmp_path)
    examples = traced(tiny_home, done.kept).examples
    asked = tokens(tiny_home, done, 7)
    causes = proposed(tiny_home, done.kept, *asked, top=3)
    assert len(causes) == 3
    assert causes[0].example == examples.train[7]
    assert causes[0].alike == pytest.approx(1, abs=0.01)
    assert causes[0].alike > causes[1].alike >= causes[2].alike
    assert causes[0].rise is None, "likeness claims no effect"
    assert causes[0].steps == examples.steps_of(examples.train[7])
    assert len(causes[0].steps) == 3
    number = int(causes[0].asked.removeprefix("say "))
    assert causes[0].where == f"{tmp_path / 'data.jsonl'}, line {number + 1}"
    assert causes[0].answer.startswith(f"it is {number}")
    (tmp_path / "data.jsonl").unlink()
    gone = proposed(tiny_home, done.kept, *asked, top=1)
    assert f"say {number}" in gone[0].asked
    assert gone == (replace(causes[0], where="", asked=gone[0].asked),)


@pytest.mark.parametrize("method", ["lora", "rslora", "houlsby", "pfeiffer", "bitfit"])
def test_methods_keep_sketches_that_can_be_compared(tiny_home: Home, tmp_path: Path, method: str) -> None:
    done = made(tiny_home, tmp_path, small(method, {}))
    _, attached = traced(tiny_home, done.kept).tuned()
    assert all(np.allclose(attached.collect()[name], value, atol=1e-4) for name, value in delta_tensors(tiny_home, done.delta).items())
    [cause] = proposed(tiny_home, done.kept, *tokens(tiny_home, done, 3), top=1)
    assert cause.example == traced(tiny_home, done.kept).examples.train[3]
    assert cause.alike == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("method", ["dora", "pissa", "ia3", "full", "prompt", "prefix"])
def test_of_other_methods_the_training_can_be_followed_back(tiny_home: Home, tmp_path: Path, method: str) -> None:
    done = made(tiny_home, tmp_path, small(method, {}))
    assert done.report["kept_examples"]["sketches"] is False
    assert traced(tiny_home, done.kept).examples.sketches is None
    with pytest.raises(ConfigError, match=f"No sketches.*{method}"):
        proposed(tiny_home, done.kept, [1], [2])
    prompt, answer = tokens(tiny_home, done, 3)
    vocabulary = traced(tiny_home, done.kept).tokenizer().vocab_size
    proof = proved(tiny_home, done.kept, [token for token in prompt if token < vocabulary], answer, top=2)
    assert proof.causes[0].rise > 0
    assert proof.causes[0].alike is None
    packs = {path.name for path in tiny_home.root.glob("packs/*")}
    assert packs <= {kept(tiny_home).digest, done.kept.digest, done.kept.base}, "what was only tried leaves no pack"


def test_training_again_without_nothing_gives_the_same_bytes(tiny_home: Home, tmp_path: Path) -> None:
    done = made(tiny_home, tmp_path)
    tune = traced(tiny_home, done.kept)
    _, candidate = tune.again((), tune.hold(RunWatch(), lambda: False), tmp_path / "again", TrainWatch())
    wanted = delta_tensors(tiny_home, done.delta)
    assert candidate.tensors.keys() == wanted.keys()
    assert all(np.array_equal(candidate.tensors[name], value) for name, value in wanted.items())


def test_proved_by_training_again(tiny_home: Home, tmp_path: Path) -> None:
    done = made(tiny_home, tmp_path)
    prompt, answer = tokens(tiny_home, done, 3)
    told = list[str]()
    proof = proved(tiny_home, done.kept, prompt, answer, top=4, draws=2, by="through", watch=RunWatch(say=told.append))
    assert proof.by == "through"
    assert len(proof.causes) == 4
    assert len(proof.without_random) == 2
    assert proof.causes[0].rise >= proof.causes[1].rise > 0
    assert proof.before > proof.whole, "the tune taught it"
    assert proof.rise > proof.by_chance, "those named matter more than others"
    assert proof.same_programs
    assert told == [f"training again without 4 examples, {number} of 3" for number in (1, 2, 3)]
    assert not any(tiny_home.tuning.iterdir()), "what is finished leaves no work behind"
    again = proved(tiny_home, done.kept, prompt, answer, top=4, draws=2, by="through")
    assert replace(again, seconds=0) == replace(proof, seconds=0)
    alike = proved(tiny_home, done.kept, prompt, answer, top=4)
    assert alike.by == "alike"
    assert alike.causes[0].rise is None


def test_stopped_it_goes_on_where_it_was(tiny_home: Home, tmp_path: Path) -> None:
    done = made(tiny_home, tmp_path)
    prompt, answer = tokens(tiny_home, done, 3)
    whole = proved(tiny_home, done.kept, prompt, answer, top=2, by="through")

    def stop(_progress: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="of training 1 of 2"):
        proved(tiny_home, done.kept, prompt, answer, top=2, by="through", watch=RunWatch(train=stop))
    [work] = tiny_home.tuning.iterdir()
    pieces = list[str]()
    rest = proved(
        tiny_home, done.kept, prompt, answer, top=2, by="through", watch=RunWatch(pieces=lambda what, _done, _of: pieces.append(what))
    )
    assert "following the training back" not in pieces, "it was followed back before"
    assert replace(rest, seconds=0) == replace(whole, seconds=0)
    assert not work.exists()


def test_what_can_not_be_traced_is_said(tiny_home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not tuned here"):
        proposed(tiny_home, kept(tiny_home), [1], [2])
    done = made(tiny_home, tmp_path)
    with pytest.raises(ConfigError, match="answer must have"):
        proposed(tiny_home, done.kept, [1], [])
    with pytest.raises(ConfigError, match="between 1 and"):
        proved(tiny_home, done.kept, [1], [2], top=1000)
    path = tiny_home.delta_folder(done.delta.digest) / EXAMPLES
    path.unlink()
    with pytest.raises(HomeError, match="is gone"):
        proposed(tiny_home, done.kept, [1], [2])
    remove(tiny_home, "tiny+x")
    with pytest.raises(NotKept):
        proposed(tiny_home, done.kept, [1], [2])
    bare = made(tiny_home, tmp_path, replace(small(), examples=KeptSettings(keep=False)))
    with pytest.raises(ConfigError, match="Nothing was kept"):
        proposed(tiny_home, bare.kept, [1], [2])
    remove(tiny_home, "tiny+x")
    few = made(tiny_home, tmp_path, replace(small(), examples=KeptSettings(sketches=False)))
    with pytest.raises(ConfigError, match="No sketches"):
        proposed(tiny_home, few.kept, [1], [2])
    assert json.loads((tiny_home.delta_folder(few.delta.digest) / "report.json").read_text())["kept_examples"]["sketches"] is False
    assert get_kept(tiny_home, "tiny+x") == few.kept
