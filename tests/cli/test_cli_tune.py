"""`ingle make tune`, `keep`, `merge`, `export` and `pull --onto`, as people use them."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingle.core.registry import titles
from ingle.home.place import Home
from ingle.measure.suites import SUITES
from tests.cli.place import COMMAND, environment, ingle
from tests.measure.test_run import BITS, CHOICE
from tests.tuning.place import write_examples
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.journey

QUICK = ["--epochs", "1", "--rank", "2", "--forgetting", "4", "--held-out", "0.2", "--set", "train.batch_tokens=192"]


@pytest.fixture(autouse=True)
def _suites(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in (BITS, CHOICE):
        monkeypatch.setitem(SUITES, suite.name, suite)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_examples(tmp_path_factory.mktemp("data") / "data.jsonl")


@pytest.fixture(scope="module")
def tuned_home(tiny_home: Path, data: str) -> Path:
    """A home that keeps tiny+mine; one for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, BITS.name, BITS)
        ingle(tiny_home, "tune", "tiny", data, "--name", "mine", *QUICK)
    return tiny_home


def facts(home: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ingle(home, "log", "--json", "--kind", kind).stdout.splitlines()]


def test_methods_are_listed_without_pytorch(tmp_path: Path) -> None:
    listed = ingle(tmp_path, "tune", "--list").stdout
    assert ingle(tmp_path, "tune").stdout == listed
    told = {entry["name"]: entry["title"] for entry in json.loads(ingle(tmp_path, "tune", "--list", "--json").stdout)}
    assert {"lora", "rslora", "dora", "pissa", "ia3", "prefix", "prompt", "houlsby", "pfeiffer", "bitfit", "full"} <= told.keys()
    assert all(name in listed and title in listed for name, title in told.items())
    assert told == titles("ingle.tuning.methods")


def test_a_table_a_plot_and_how_to_use_it(tiny_home: Path, data: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = ingle(tiny_home, "tune", "tiny", data, "--name", "one", *QUICK, "--out", str(out))
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["figure", "before", "after", "interval", "of", "the", "change"]
    table = {line.split("  ")[0].split(" (n")[0]: line for line in lines}
    for figure in ("loss, held out, as served", "bits/byte of general text (forgetting)", "parameters trained", "parts touched", "speed"):
        assert figure in table
    assert "…" in table["loss, held out, as served"]
    assert "14 of 14" in table["parts touched"]
    plot = next(line for line in lines if line.startswith("Loss curve: ")).removeprefix("Loss curve: ")
    assert Path(plot).read_text("utf-8").startswith("<svg")
    assert lines[-1] == "Talk with it: ingle chat tiny+one"
    assert "training: 1 of" in done.stderr
    report = json.loads(out.read_text("utf-8"))
    [event] = [fact for fact in facts(tiny_home, "tune") if fact["subject"] == "tiny+one" and fact["kind"] == "tune"]
    assert event["facts"]["delta"] == report["delta"]
    assert event["facts"]["loss"] == report["train"]["loss"]
    [judged] = facts(tiny_home, "tune.judge")[-1:]
    assert judged["facts"]["forgetting"] == next(one["value"] for one in report["served"] if one["name"] == "forgetting")
    assert "data.jsonl" not in json.dumps([event, judged]), "facts hold digests and figures, no names of files"
    assert "say 1" not in (tiny_home / "ingle.db").read_bytes().decode("latin-1")
    assert ingle(tiny_home, "run", "hello", "tiny+one", "--max-tokens", "3").stdout


def test_json_and_settings(tiny_home: Path, data: str) -> None:
    arguments = ["--method", "bitfit", "--rate", "0.02", "--layers", "1", "--seed", "3", "--max-examples", "12", "--max-tokens", "100"]
    quick = ["--epochs", "1", "--forgetting", "0", "--held-out", "0.25", "--set", "train.schedule.kind=cosine", "--set", "judge.held_out=0"]
    report = json.loads(ingle(tiny_home, "tune", "tiny", data, "--name", "two", *arguments, *quick, "--json").stdout)
    told = report["settings"]
    assert (told["method"], told["layers"], told["max_examples"], report["seed"]) == ("bitfit", "1", 12, 3)
    assert told["train"]["optimiser"]["learning_rate"] == 0.02
    assert (told["train"]["schedule"]["kind"], told["data"]["max_tokens"]) == ("cosine", 100)
    assert report["modules"]["touched"] == 7
    assert report["served"] == []
    assert any("forgetting was not" in note for note in report["notes"])


def test_what_is_wrong_is_one_line(tiny_home: Path, tuned_home: Path, data: str, tmp_path: Path) -> None:
    def refused(*arguments: str, code: int = 2) -> str:
        return ingle(tiny_home, "tune", *arguments, code=code).stderr.splitlines()[-1]

    assert "--name mine" in refused("tiny", data)
    assert "python recipes/painter/train.py" in refused("painter", "tiny")
    assert "Another delta" in refused("tiny", data, "--name", "mine")
    assert "Did you mean lora" in refused("tiny", data, "--name", "x", "--method", "lorra")
    assert "is not kept" in refused("nobody", data, "--name", "x", code=3)
    assert "is not there" in refused("tiny", "nothing.jsonl", "--name", "x")
    assert "data must be named" in refused("tiny", "--name", "x")
    assert "rank must be at least 1" in refused("tiny", data, "--name", "x", "--rank", "0")
    assert "Did you mean epochs" in refused("tiny", data, "--name", "x", "--set", "train.epoch=1")
    bad = write_examples(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": "b"}, "{"])
    assert "bad.jsonl, line 2" in refused("tiny", bad, "--name", "x")


def test_what_the_gate_refuses_waits_for_force(tiny_home: Path, data: str) -> None:
    never = [
        "--policy",
        "tune.bits.most_rise_percent=-90",
        "--forgetting",
        "0",
        "--set",
        "judge.held_out=0",
        "--set",
        "train.batch_tokens=192",
    ]
    command = ["tune", "tiny", data, "--name", "gated", "--epochs", "1", "--rank", "2", *never]
    refused = ingle(tiny_home, *command, code=13)
    assert "was refused by the gate" in refused.stderr and "--force" in refused.stderr
    assert "tiny+gated" not in ingle(tiny_home, "list").stdout
    [no] = [fact for fact in facts(tiny_home, "gate.refuse") if fact["subject"] == "tiny+gated"]
    assert (no["facts"]["failed"], no["facts"]["forced"]) == ("bits", False)
    done = ingle(tiny_home, *command, "--force")
    assert "training: 1 of" not in done.stderr, "what was trained is not trained again"
    assert "admitted by --force although bits" in done.stderr
    [yes] = [fact for fact in facts(tiny_home, "gate.accept") if fact["subject"] == "tiny+gated"]
    assert yes["facts"]["forced"] is True
    assert yes["facts"]["delta"] == no["facts"]["delta"]
    assert "Did you mean bits" in ingle(tiny_home, *command[:3], "--name", "x", "--policy", "bist.on=false", code=2).stderr
    ingle(tiny_home, "rm", "tiny+gated", "--yes")


def test_without_the_extra_it_says_how_to_get_it(tiny_home: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    assert f"{sys.executable} -m pip install" in ingle(tiny_home, "tune", "tiny", data, "--name", "x", code=2).stderr
    assert "lora" in ingle(tiny_home, "tune", "--list").stdout


def test_a_recipe_from_its_first_line_to_its_last_figure(tiny_home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "numbers.toml"
    recipe.write_text(
        'title = "yes or no"\nmodel = "tiny"\nname = "numbers"\nsuite = "boolq"\n'
        '[tune]\nmax_examples = 16\noptions = { rank = 2 }\ndata = { template = "plain" }\ntrain = { epochs = 1 }\n'
        '[measure]\nsuite = "boolq"\nitems = 6\nshots = 2\n[forgetting]\nsuite = "wiki-bits"\nitems = 4\n'
    )
    done = ingle(tiny_home, "tune", "--recipe", str(recipe), "--set", "train.max_steps=2")
    rows = [line for line in done.stdout.splitlines() if line.startswith("boolq, accuracy: ")]
    assert [line.split("  ")[-1] for line in rows] == ["tiny", "tiny, 2 examples in the prompt", "tiny+numbers"]
    assert all("n = 6" in line for line in rows)
    measured = [fact["subject"] for fact in facts(tiny_home, "measure")[-3:]]
    assert measured == ["tiny", "tiny", "tiny+numbers"]
    again = json.loads(ingle(tiny_home, "tune", "--recipe", str(recipe), "--set", "train.max_steps=2", "--json").stdout)
    assert [(one["what"], one["suite"], one["n"]) for one in again["task"]] == [(row.split("  ")[-1], "boolq", 6) for row in rows]
    assert "is not a known key" in ingle(tiny_home, "tune", "--recipe", str(recipe), "--set", "x=1", code=2).stderr


def test_keep_gives_a_stack_its_own_name(tuned_home: Path) -> None:
    done = ingle(tuned_home, "keep", "tiny+mine", "as", "mine")
    assert done.stdout.splitlines()[-1] == "Talk with it: ingle chat mine"
    assert ingle(tuned_home, "keep", "tiny+mine", "--as", "mine").returncode == 0
    assert len([fact for fact in facts(tuned_home, "keep") if fact["subject"] == "mine"]) == 1
    assert ingle(tuned_home, "run", "hello", "mine", "--max-tokens", "2").stdout
    assert "part of other kept models" in ingle(tuned_home, "rm", "tiny+mine", "--yes", code=4).stderr
    for wrong in (["keep", "tiny+mine"], ["keep", "tiny+mine", "as"], ["keep", "tiny+mine", "as", "a", "--as", "b"]):
        assert "Give one name" in ingle(tuned_home, *wrong, code=2).stderr
    assert "is taken by a model" in ingle(tuned_home, "keep", "tiny+mine", "as", "tiny", code=2).stderr
    assert "is called tiny already" in ingle(tuned_home, "keep", "tiny", "as", "tiny", code=2).stderr
    ingle(tuned_home, "rm", "mine", "--yes")


def test_merge_makes_a_model_of_its_own(tuned_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    told = json.loads(ingle(tuned_home, "merge", "tiny+mine", "--name", "whole", "--out", str(out), "--json").stdout)
    assert (told["name"], told["of"]) == ("whole", "tiny+mine")
    assert (out / "model.safetensors").exists()
    [fact] = [fact for fact in facts(tuned_home, "merge") if fact["subject"] == "whole"]
    assert fact["facts"]["base"] == told["base"]
    assert ingle(tuned_home, "run", "hello", "whole", "--max-tokens", "2").stdout
    assert "--name keeps" in ingle(tuned_home, "merge", "tiny+mine", code=2).stderr
    assert "must have deltas" in ingle(tuned_home, "merge", "tiny", "--name", "x", code=2).stderr
    ingle(tuned_home, "rm", "whole", "--yes")


def test_out_as_a_peft_folder_and_in_again(tuned_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine-peft"
    assert "is in" in ingle(tuned_home, "export", "tiny+mine", "--format", "peft", "--out", str(out)).stdout
    assert "there already" in ingle(tuned_home, "export", "tiny+mine", "--format", "peft", "--out", str(out), code=2).stderr
    ingle(tuned_home, "export", "tiny+mine", "--format", "peft", "--out", str(out), "--force")
    told = json.loads(ingle(tuned_home, "pull", str(out), "--onto", "tiny", "--name", "back", "--json").stdout)
    assert (told["name"], told["kind"]) == ("tiny+back", "lora")
    assert json.loads(ingle(tuned_home, "pull", str(out), "--onto", "tiny", "--name", "back", "--json").stdout) == told
    first, back = (
        ingle(tuned_home, "run", "hello", f"tiny+{name}", "--max-tokens", "9", "--temperature", "0").stdout for name in ("mine", "back")
    )
    assert first == back
    assert facts(tuned_home, "pull.delta")[-1]["subject"] == "tiny+back"
    assert facts(tuned_home, "gate.accept")[-1]["facts"]["maker"] == "import"
    refused = ingle(tuned_home, "pull", str(out), "--onto", "tiny", "--name", "no", "--policy", "bits.most_rise_percent=-90", code=13)
    assert "was refused by the gate" in refused.stderr
    assert "Another delta" in ingle(tuned_home, "pull", str(out), "--onto", "tiny", "--name", "mine", code=2).stderr
    assert "adapter_config.json" in ingle(tuned_home, "pull", str(tmp_path), "--onto", "tiny", code=4).stderr
    ingle(tuned_home, "rm", "tiny+back", "--yes")


def test_out_as_a_file_for_llama_cpp(tuned_home: Path, tmp_path: Path) -> None:
    told = json.loads(ingle(tuned_home, "export", "tiny+mine", "--format", "gguf", "--out", str(tmp_path), "--json").stdout)
    assert told["out"] == str(tmp_path / "tiny-mine.F16.gguf")
    assert told["bytes"] == (tmp_path / "tiny-mine.F16.gguf").stat().st_size
    assert facts(tuned_home, "export")[-1]["facts"]["format"] == "gguf"
    ingle(tuned_home, "pull", told["out"], "--name", "again")
    assert ingle(tuned_home, "run", "hello", "again", "--max-tokens", "2").stdout
    assert "must be one of peft, hf, gguf" in ingle(tuned_home, "export", "tiny", "--format", "onnx", "--out", "x", code=2).stderr
    assert "--type must be one of" in ingle(tuned_home, "export", "tiny", "--format", "hf", "--type", "q8_0", "--out", "x", code=2).stderr
    ingle(tuned_home, "rm", "again", "--yes")


def test_only_tuning_needs_pytorch(tuned_home: Path, tmp_path: Path) -> None:
    program = """
import sys
from ingle.cli.main import main
for arguments in (["keep", "tiny+mine", "as", "other"], ["merge", "tiny+mine", "--out", sys.argv[1] + "/merged"],
                  ["export", "tiny+mine", "--format", "gguf", "--out", sys.argv[1]],
                  ["export", "tiny+mine", "--format", "peft", "--out", sys.argv[1] + "/peft"],
                  ["pull", sys.argv[1] + "/peft", "--onto", "tiny", "--name", "p"], ["measure"], ["tune", "--list"]):
    assert main(arguments) == 0, arguments
print(*sys.modules, file=sys.stderr)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(tuned_home))
    assert not set(done.stderr.splitlines()[-1].split()) & {"torch", "transformers", "peft", "scipy"}
    ingle(tuned_home, "rm", "tiny+p", "--yes")


def test_a_bad_line_is_told_before_pytorch_is_loaded(tuned_home: Path, tmp_path: Path) -> None:
    program = """
import sys
from ingle.cli.main import main
code = main(["tune", "tiny", sys.argv[1], "--name", "bad"])
print(code, *sys.modules, file=sys.stdout)
"""
    bad = write_examples(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": "b"}, {"question": "c"}])
    done = subprocess.run([sys.executable, "-c", program, bad], capture_output=True, text=True, check=True, env=environment(tuned_home))
    code, *modules = done.stdout.split()
    assert code == "2" and "bad.jsonl, line 2" in done.stderr
    assert not set(modules) & {"torch", "numba"}


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_says_that_the_same_command_goes_on(own_home: Home, data: str) -> None:
    settings = ["--epochs", "20", "--forgetting", "0", "--set", "train.batch_tokens=192", "--set", "judge.held_out=0"]
    command = [*COMMAND, "tune", "tiny", data, "--name", "mine", *settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(own_home.root)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training: 1 of"):
                process.send_signal(signal.SIGINT)
                break
        out, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, ""), told
    assert "Run the same command to go on" in told
    assert list(own_home.tuning.glob("*/*/step-*"))
    again = ingle(own_home.root, *command[len(COMMAND) :])
    assert "training: 1 of" not in again.stderr
    assert again.stdout.splitlines()[-1] == "Talk with it: ingle chat tiny+mine"
