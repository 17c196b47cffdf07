"""Models with other sublayers than Llama's, as people use them: pull, run, tune; and a clear word where the mathematics ends."""

import json
from pathlib import Path

import pytest

from tests.cli.place import ingle, write_model
from tests.model.tiny_models import OWN, hf_table
from tests.tuning.place import write_examples

pytestmark = pytest.mark.journey

FAMILIES = {
    "olmoe": ("8 experts of width 48, 3 for each token", "experts"),
    "lfm2": ("3 with a short convolution instead of attention", "convolution"),
    "qwen3_5_text": ("3 with the gated delta rule instead of attention", "delta"),
}
QUICK = ("--set", "train.epochs=1", "--set", "train.batch_tokens=192", "--set", "judge.forgetting=0", "--set", "judge.held_out=0")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_a_family_from_pull_to_tune(tmp_path: Path, family: str) -> None:
    home, (inside, part) = tmp_path / "home", FAMILIES[family]
    table = hf_table(family)
    changes = {**OWN[family], **{key: table[key] for key in ("architectures", "model_type")}, "tie_word_embeddings": True}
    folder = write_model(tmp_path / "files", 512, changes)
    ingle(home, "pull", str(folder), "--name", "m")
    assert inside in ingle(home, "show", "m").stdout
    first = ingle(home, "run", "hello", "m", "--temperature", "0", "--max-tokens", "6").stdout
    assert first == ingle(home, "run", "hello", "m", "--temperature", "0", "--max-tokens", "6").stdout
    data = write_examples(tmp_path / "data.jsonl")
    report = json.loads(ingle(home, "tune", "m", data, "--name", "x", *QUICK, "--json", "--force").stdout)
    touched = {"olmoe": 2 * 4, "lfm2": 4 + 4 * 3, "qwen3_5_text": 4 + 4 * 3}[family]
    assert report["modules"] == {"intended": touched, "touched": touched, "moved": touched}
    assert report["train"]["loss"] < report["train"]["first_loss"]
    assert ingle(home, "run", "say 3", "m+x", "--temperature", "0", "--max-tokens", "6").stdout
    for command in (("quantise", "m", "--name", "q"), ("prune", "m", "--name", "p"), ("hybridize", "m", "--name", "h")):
        refused = ingle(home, *command, code=2).stderr
        assert "it knows attention and the plain MLP only" in refused and part in refused, command
    ingle(home, "verify", "--models")
