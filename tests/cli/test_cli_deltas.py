"""Models with deltas on the command line: asked, listed, shown, verified and removed like others."""

import json
from pathlib import Path

import numpy as np
import pytest

from ingle.home.deltas import put_delta, verify_delta
from ingle.home.kept import get_kept, keep
from ingle.home.place import Home
from ingle.measure.suites import SUITES
from ingle.model.checkpoint import open_checkpoint
from tests.cli.place import ingle
from tests.engine.test_delta_kinds import random_change
from tests.measure.test_run import BITS

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
REPORT = {
    "held_out": {"before": 2.5, "after": 2.25},
    "served": [{"name": "forgetting", "value": 0.01, "unit": "bits/byte", "low": 0.005, "high": 0.02, "n": 40}],
    "notes": ["a remark"],
}


def put(home: Home, model: str, name: str, kind: str = "lora", seed: int = 0) -> str:
    """Keeps a random delta; returns its digest."""
    kept = get_kept(home, model)
    config = open_checkpoint(home.base_folder(kept.base)).config
    if kind == "prefix":
        parts = np.random.default_rng(seed).standard_normal((2, 2, 2, 6, 16)).astype(np.float32)
        tensors = {"prefix.keys": parts[0], "prefix.values": parts[1]}
    else:
        tensors = dict(random_change(config, kind, seed, (Q, DOWN)).tensors)
    origin = {
        "method": "rslora" if kind == "lora" else kind, "data": "letters.jsonl", "data_digest": "d" * 8, "seed": str(seed),
        "command": f"ingle make tune {model} letters.jsonl", "created_at": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip
    return put_delta(home, name, kind, kept.digest, tensors, origin, REPORT).digest


def asked(home: Home, model: str, *options: str) -> str:
    return ingle(home.root, "run", "a question", model, "--max-tokens", "12", "--temperature", "0", *options).stdout


@pytest.mark.parametrize("kind", ["lora", "full", "bottleneck", "prefix"])
def test_a_model_with_a_delta_answers(own_home: Home, kind: str) -> None:
    before = asked(own_home, "tiny")
    put(own_home, "tiny", "x", kind)
    told = json.loads(asked(own_home, "tiny+x", "--json"))
    assert told["model"] == "tiny+x"
    assert told["text"] != before.removesuffix("\n")
    assert told["model_digest"] != json.loads(asked(own_home, "tiny", "--json"))["model_digest"]
    talked = ingle(own_home.root, "chat", "tiny+x", "--temperature", "0", "--max-tokens", "12", given=b"a question\n").stdout
    assert told["text"].strip() in talked
    ingle(own_home.root, "rm", "tiny+x")
    assert asked(own_home, "tiny") == before


def test_they_are_listed_and_shown(own_home: Home) -> None:
    root, digest = own_home.root, put(own_home, "tiny", "x")
    above = put(own_home, "tiny+x", "y", "ia3", 1)
    keep(own_home, "mine", get_kept(own_home, "tiny").base, [digest])
    listed = {entry["name"]: entry for entry in json.loads(ingle(root, "list", "--json").stdout)}
    assert list(listed) == ["mine", "mine+y", "tiny", "tiny+x", "tiny+x+y"]
    assert listed["tiny+x+y"]["deltas"] == [digest, above]
    assert listed["tiny"]["delta_bytes"] == 0 < listed["tiny+x"]["delta_bytes"] < listed["tiny+x+y"]["delta_bytes"]
    words = ingle(root, "list").stdout
    assert "rslora, letters.jsonl" in words and "ia3, letters.jsonl" in words
    shown = json.loads(ingle(root, "show", "tiny+x+y", "--json").stdout)
    assert shown["deltas"] == [digest, above]
    assert [made["kind"] for made in shown["made"]] == ["lora", "ia3"]
    assert shown["made"][0]["report"] == REPORT and shown["made"][0]["origin"]["data_digest"] == "d" * 8
    assert shown["served"] == "x, y merged into the weights"
    words = ingle(root, "show", "tiny+x").stdout
    wanted = ["rslora (kind lora), 4 tensors", "letters.jsonl (digest dddddddd)", "ingle make tune tiny letters.jsonl", "x beside"]
    wanted += ["2.5000 before, 2.2500 after", "forgetting 0.0100 bits/byte (0.0050 … 0.0200, n = 40)", "a remark", digest]
    assert [said for said in wanted if said not in words] == []
    assert "made" not in json.loads(ingle(root, "show", "tiny", "--json").stdout)
    asked(own_home, "tiny+x+y")
    assert len(json.loads(ingle(root, "show", "tiny+x+y", "--json").stdout)["packed"]) == 1


def test_they_are_measured_as_themselves(own_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, BITS.name, BITS)
    put(own_home, "tiny", "x")
    put(own_home, "tiny", "p", "prefix")
    told = [
        json.loads(ingle(own_home.root, "measure", model, "--suite", BITS.name, "--json").stdout) for model in ("tiny", "tiny+x", "tiny+p")
    ]
    for figure in ("model_digest", "value"):
        assert len({outcome["reports"][0][figure] for outcome in told}) == 3


def test_verify_reads_deltas_too(own_home: Home) -> None:
    root, digest = own_home.root, put(own_home, "tiny", "x")
    assert "model and delta" in ingle(root, "verify", "--models").stdout
    path = own_home.delta_folder(digest) / "tensors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert verify_delta(own_home, digest)
    assert "BROKEN model tiny+x: model.layers" in ingle(root, "verify", "--models", code=7).stdout
    [fault] = json.loads(ingle(root, "verify", "--models", "--json", code=7).stdout)["models"]
    assert fault["model"] == "tiny+x" and "not as it was kept" in fault["fault"]
    assert "as it was kept" in ingle(root, "run", "hi", "tiny+x", code=6).stderr
    path.write_bytes(whole)
    manifest = own_home.delta_folder(digest) / "delta.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"lora", b"dora", 1))
    assert f"BROKEN delta {digest[:12]}" in ingle(root, "verify", "--models", code=7).stdout


def test_rm_takes_the_delta_alone_and_refuses_what_others_need(own_home: Home) -> None:
    root, digest = own_home.root, put(own_home, "tiny", "x")
    put(own_home, "tiny+x", "y", seed=1)
    assert "tiny+x+y" in ingle(root, "rm", "tiny+x", code=4).stderr
    assert "deltas were made for" in ingle(root, "rm", "tiny", code=4).stderr
    ingle(root, "rm", "tiny+x+y")
    told = json.loads(ingle(root, "rm", "tiny+x", "--json").stdout)
    assert told["deltas"] == [digest] and told["bases"] == [] and told["bytes"] > 0
    fact = json.loads(ingle(root, "log", "--kind", "rm", "--last", "1", "--json").stdout)
    assert fact["subject"] == "tiny+x" and fact["facts"]["delta"] == digest
    ingle(root, "run", "hi", "tiny+x", code=3)
    ingle(root, "rm", "tiny")
    assert not any(own_home.deltas.iterdir())


def test_a_damaged_model_does_not_hide_the_others(own_home: Home) -> None:
    root = own_home.root
    put(own_home, "tiny", "x")
    broken = own_home.models / "broken.json"
    broken.write_text("{")
    told = ingle(root, "list", code=6)
    assert "tiny+x" in told.stdout and "broken.json" in told.stderr
    assert len(json.loads(ingle(root, "list", "--json", code=6).stdout)) == 2
    assert asked(own_home, "tiny") and ingle(root, "run", "hi", "--max-tokens", "2").stdout
    assert "BROKEN model broken" in ingle(root, "verify", "--models", code=7).stdout
    ingle(root, "rm", "broken")
    assert not broken.exists()


def test_unknown_deltas_say_what_is_there(own_home: Home, tmp_path: Path) -> None:
    put(own_home, "tiny", "x")
    assert "tiny+x" in ingle(own_home.root, "run", "hi", "tiny+y", code=3).stderr
    assert "was made for base" in ingle(own_home.root, "run", "hi", "tiny+x+x", code=4).stderr
    assert not list(tmp_path.glob("*.part"))
