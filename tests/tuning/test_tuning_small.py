"""Few examples: they are read until they are learnt, enough of them are held out, and where nothing was learned that is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.errors import ConfigError, PullError
from ingle.home.place import Home
from ingle.measure.suites import SUITES
from ingle.train.example_files import Encoder, Record
from ingle.train.loop_settings import TrainSettings
from ingle.train.making import RunWatch
from ingle.train.packing import Data
from ingle.tuning.comparison import rows, samples
from ingle.tuning.tune import tune
from ingle.tuning.tune_settings import SmallData, TuneSettings, course_of, settings_of, told
from tests.train.tiny_train import chat_tokenizer, corpus_of, documents
from tests.tuning.place import admitting, kept, tuned, write_examples

FAST = {"train": {"optimiser": {"learning_rate": 5e-3}}, "judge": {"forgetting": 0}}


def data_of(count: int, size: int) -> Data:
    corpus = corpus_of(documents([size] * count))
    return Data(corpus, range(8, count), range(8))


def test_few_examples_get_more_steps_in_smaller_batches() -> None:
    train, small = TrainSettings(), SmallData()
    few, many = data_of(60, 50), data_of(6000, 50)
    course = course_of(train, small, few)
    assert (course.batch_tokens, course.epochs, course.patience) == (512, 10, 2)
    assert "52 examples are few, so they are read 10 times, or until little is left to learn" in told(train, course, 52)
    assert course_of(train, small, many) == train and told(train, train, 5992) == ""
    assert course_of(train, small, data_of(20, 900)).batch_tokens == 900, "the longest example must fit"
    assert course_of(train, SmallData(least_steps=0), few) == train
    assert course_of(train, SmallData(batch_tokens=0), few).batch_tokens == train.batch_tokens
    assert course_of(train, small, Data(few.corpus, range(60), range(0))).patience == 0, "nothing tells when to stop"


def test_what_was_given_is_kept() -> None:
    assert settings_of({}).small.least_steps == SmallData().least_steps and settings_of({}).data.least_held_out == 8
    for train in ({"epochs": 2}, {"max_steps": 5}):
        assert settings_of({"train": train}).small.least_steps == 0
    assert settings_of({"train": {"batch_tokens": 300}}).small.batch_tokens == 0
    assert settings_of({"data": {"held_out": 0.1}}).data.least_held_out == 0
    assert settings_of({"objective": {"kind": "dpo"}}).small.least_steps == 0
    assert settings_of({"train": {"epochs": 2}, "small": {"least_steps": 9}}).small.least_steps == 9
    with pytest.raises(ConfigError, match=r"small.patience must not be negative"):
        TuneSettings(small=SmallData(patience=-1))


def test_sixty_examples_are_learnt_and_three_are_shown(tiny_home: Home, tmp_path: Path) -> None:
    said: list[str] = []
    data = write_examples(tmp_path / "data.jsonl", [{"prompt": f"say {i}", "completion": "it is as it is"} for i in range(60)])
    done = tuned(tiny_home, data, settings_of(FAST), watch=RunWatch(say=said.append))
    report = done.report
    assert report["held_out_examples"] == 8
    assert report["train"]["steps"] > 6
    assert report["held_out"]["after"] < 0.5 * report["held_out"]["before"]
    assert report["learned"] is True and not any("nothing was learned" in note for note in report["notes"])
    assert any("52 examples are few" in line for line in said)
    assert report["settings"]["train"]["patience"] == SmallData().patience, "the report says what was done"
    assert len(report["samples"]) == 3
    for sample in report["samples"]:
        assert sample["asked"].startswith("say ") and sample["wanted"] == "it is as it is"
        assert sample["after"].startswith("it is as it is") and not sample["before"].startswith("it is")
    assert json.loads((done.folder / "report.json").read_text("utf-8"))["samples"] == report["samples"]
    assert tuned(tiny_home, data, settings_of(FAST)).delta == done.delta, "the same again changes nothing"


def test_where_nothing_was_learned_that_is_said(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    slow = settings_of({"train": {"max_steps": 1, "optimiser": {"learning_rate": 1e-6}}, "judge": {"forgetting": 0}})
    report = tuned(tiny_home, data, slow).report
    assert report["learned"] is False
    assert any(note.startswith("Warning: nothing was learned") and "--epochs" in note for note in report["notes"])


def test_one_held_out_example_has_no_interval(tiny_home: Home, tmp_path: Path) -> None:
    settings = settings_of({"train": {"max_steps": 1}, "data": {"held_out": 0.001}, "judge": {"forgetting": 0}})
    report = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), settings).report
    assert report["held_out_examples"] == 1
    [row] = [row for row in rows(report) if "as served" in row[0]]
    assert row[3].endswith("(n = 1)") and "…" not in row[3]


def test_a_bad_line_is_told_before_anything_is_fetched(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise PullError("suite", "can't be reached")

    def no_loading(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    general = SUITES["wiki-bits"]
    monkeypatch.setitem(SUITES, general.name, replace(general, read=unreachable))
    monkeypatch.setattr("ingle.tuning.tune.load_module", no_loading)
    data = write_examples(tmp_path / "data.jsonl", [{"prompt": "a", "completion": "b"}, {"question": "c"}])
    with pytest.raises(ConfigError, match="line 2 must hold messages"):
        tune(tiny_home, kept(tiny_home), [data], "x", settings_of({}), admitting(tiny_home))
    good = write_examples(tmp_path / "good.jsonl")
    with pytest.raises(PullError, match="--forgetting 0"):
        tune(tiny_home, kept(tiny_home), [good], "x", settings_of({}), admitting(tiny_home))


def test_a_sample_shows_the_last_turn() -> None:
    tokenizer = chat_tokenizer()
    encoder = Encoder(tokenizer, 100)
    [document] = encoder.documents(Record("x", "completion", "why is it so", ("because",)))
    [sample] = samples(tokenizer, [document], ["no"], ["yes"], 9)
    assert (sample.asked, sample.wanted, sample.before, sample.after) == ("why is it so", "because", "no", "yes")
    [text] = encoder.documents(Record("x", "text", "", ("a text that goes on and on and on",)))
    [half] = samples(tokenizer, [text], ["no"], ["yes"], 99)
    assert half.asked + half.wanted == "a text that goes on and on and on", "a text is begun, and gone on with"
