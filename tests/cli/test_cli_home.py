"""The verbs that look after the home: pull, list, show, rm, log, verify, head, doctor."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.cli.examine import examine
from ingle.home.place import Home
from tests.authority import running
from tests.cli.place import COMMAND, CONTEXT, environment, ingle
from tests.waiting import for_a_while


def kinds(home: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in ingle(home, "log", "--json", "--last", "1000").stdout.splitlines()]


def written(home: Path) -> dict[Path, tuple[int, int]]:
    """Each file of the weights: which it is, and when it was written."""
    files = [path for folder in ("bases", "packs", "models") for path in (home / folder).rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_pull_list_show_rm(tmp_path: Path, tiny_folder: Path) -> None:
    told = json.loads(ingle(tmp_path, "pull", str(tiny_folder), "--name", "mine", "--json").stdout)
    assert told["name"] == "mine"
    assert not told["already"]
    before = written(tmp_path)
    again = ingle(tmp_path, "pull", str(tiny_folder), "--name", "mine")
    assert "was kept already" in again.stdout
    assert written(tmp_path) == before, "neither copied nor packed again"
    assert kinds(tmp_path) == ["pull"], "nothing changed, so nothing is recorded"
    [entry] = json.loads(ingle(tmp_path, "list", "--json").stdout)
    assert entry["base"] == told["base"]
    assert "mine" in ingle(tmp_path, "list").stdout
    shown = json.loads(ingle(tmp_path, "show", "mine", "--json").stdout)
    assert shown["config"]["context_length"] == CONTEXT
    assert shown["packed"] == [{"format": "auto", "bytes": told["packed_bytes"], "model_digest": told["model_digest"]}]
    assert {file["name"] for file in shown["base"]["files"]} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    words = ingle(tmp_path, "show", "mine").stdout
    assert told["base"] in words
    assert "llama" in words
    assert "4 of width 16, sharing 2 key-value groups" in words
    assert "freed" in ingle(tmp_path, "rm", "mine").stdout
    assert json.loads(ingle(tmp_path, "list", "--json").stdout) == []
    assert kinds(tmp_path) == ["pull", "rm"]
    ingle(tmp_path, "pull", str(tiny_folder), "--name", "mine")
    assert kinds(tmp_path) == ["pull", "rm", "pull"]


def test_another_format_is_made_ready_beside_the_first(own_home: Home, tiny_folder: Path) -> None:
    ingle(own_home.root, "pull", str(tiny_folder), "--name", "tiny", "--format", "fp32")
    shown = json.loads(ingle(own_home.root, "show", "tiny", "--json").stdout)
    assert [pack["format"] for pack in shown["packed"]] == ["auto", "fp32"]
    assert shown["packed"][0]["model_digest"] != shown["packed"][1]["model_digest"]


def test_damaged_weights_are_not_kept(tmp_path: Path, tiny_folder: Path) -> None:
    bad = shutil.copytree(tiny_folder, tmp_path / "bad")
    data = bytearray((bad / "model.safetensors").read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    (bad / "model.safetensors").write_bytes(data)
    said = ingle(tmp_path / "home", "pull", str(bad), code=4).stderr
    assert "must hold finite numbers only" in said
    (bad / "model.safetensors").write_bytes(data[:-100])
    ingle(tmp_path / "home", "pull", str(bad), code=4)
    assert json.loads(ingle(tmp_path / "home", "list", "--json").stdout) == []


@pytest.mark.parametrize("after_s", [0.5, 1.2])
def test_killed_in_the_middle_it_works_the_next_time(tmp_path: Path, smollm2_gguf: Path, after_s: float) -> None:
    home = tmp_path / "home"
    command = [*COMMAND, "pull", str(smollm2_gguf), "--name", "m"]
    with subprocess.Popen(
        command, env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for_a_while(after_s)
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    ingle(home, "pull", str(smollm2_gguf), "--name", "m")
    assert [entry["name"] for entry in json.loads(ingle(home, "list", "--json").stdout)] == ["m"]
    assert kinds(home) == ["pull"]
    assert list((home / "staging").iterdir()) == []


def test_verify_finds_what_was_changed(own_home: Home, tmp_path: Path) -> None:
    ingle(own_home.root, "run", "hi", "--max-tokens", "2")
    exported = tmp_path / "head"
    ingle(own_home.root, "head", "--out", str(exported))
    assert json.loads(ingle(own_home.root, "head").stdout)["seq"] == 3
    assert "3 facts" in ingle(own_home.root, "verify", "--head", str(exported)).stdout
    with sqlite3.connect(own_home.database_file) as database:
        database.execute("UPDATE ledger SET facts = replace(facts, 'finish', 'fine') WHERE seq = 3")
    database.close()
    assert "BROKEN at fact 3" in ingle(own_home.root, "verify", code=7).stdout
    told = json.loads(ingle(own_home.root, "verify", "--json", code=7).stdout)
    assert told["problem"]["seq"] == 3
    assert told["facts"] == 2
    [file] = own_home.bases.glob("*/model.safetensors")
    file.chmod(0o600)
    with file.open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x01")
    assert "model.safetensors is altered" in ingle(own_home.root, "verify", "--models", code=7).stdout


def test_a_cut_off_tail_is_accepted_as_a_fact(own_home: Home) -> None:
    ingle(own_home.root, "run", "hi", "--max-tokens", "2", "--no-keep")
    with sqlite3.connect(own_home.database_file) as database:
        database.execute("DELETE FROM ledger WHERE seq = 3")
    database.close()
    assert "cut off" in ingle(own_home.root, "verify", code=7).stdout
    assert "--accept-loss" in ingle(own_home.root, "run", "hi", "--max-tokens", "2", code=7).stderr
    assert "whole" in ingle(own_home.root, "verify", "--accept-loss").stdout
    ingle(own_home.root, "run", "hi", "--max-tokens", "2")
    assert kinds(own_home.root) == ["pull", "answers.key", "ledger.loss", "answer"]


def test_the_ledgers_key_is_rotated(own_home: Home, tmp_path: Path) -> None:
    exported = tmp_path / "head"
    ingle(own_home.root, "head", "--out", str(exported))
    said = ingle(own_home.root, "head", "rotate").stdout
    old, new = json.loads(exported.read_text())["fingerprint"], json.loads(ingle(own_home.root, "head").stdout)["fingerprint"]
    assert said.startswith(f"Key {new[:12]} signs from fact 3 on. The private key {old[:12]} is deleted")
    assert kinds(own_home.root) == ["pull", "ledger.rotate", "ledger.rotated"]
    assert f"handed over to key {new[:12]}" in ingle(own_home.root, "log").stdout
    assert "the last of 2" in ingle(own_home.root, "verify", "--head", str(exported)).stdout
    assert json.loads(ingle(own_home.root, "verify", "--json").stdout)["keys"] == [old, new]
    assert "writes no head" in ingle(own_home.root, "head", "rotate", "--out", "x", code=2).stderr
    ingle(own_home.root, "run", "hi", "--max-tokens", "2")
    assert "5 facts" in ingle(own_home.root, "verify", "--head", str(exported)).stdout


def test_a_head_is_time_stamped_and_checked(own_home: Home, tmp_path: Path) -> None:
    head = tmp_path / "head"
    with running(tmp_path / "authority") as authority:
        told = ingle(own_home.root, "head", "--out", str(head), "--timestamp", authority.url)
        assert "127.0.0.1 stamped it at 20" in told.stdout and "--tsa-roots" in told.stderr
    assert kinds(own_home.root) == ["pull", "ledger.stamp"]
    assert "the ledger's head, row 1, was time-stamped by 127.0.0.1" in ingle(own_home.root, "log").stdout
    assert "was not checked" in ingle(own_home.root, "verify", "--head", str(head)).stderr
    roots = ("--tsa-roots", str(authority.roots))
    told = ingle(own_home.root, "verify", "--head", str(head), *roots)
    assert "CN=Clock of Tests says that this head was there at 20" in told.stdout and "it does not say" in told.stdout
    assert json.loads(ingle(own_home.root, "verify", "--head", str(head), *roots, "--json").stdout)["stamp"]["serial"] == "2"
    ingle(own_home.root, "head", "--out", str(head))  # another head than the one that was stamped
    assert "BROKEN time-stamp: time-stamp does not prove" in ingle(own_home.root, "verify", "--head", str(head), *roots, code=7).stdout
    assert "Say which: --head FILE" in ingle(own_home.root, "verify", *roots, code=2).stderr
    assert "Say where: --out FILE" in ingle(own_home.root, "head", "--timestamp", authority.url, code=2).stderr


def test_log_in_words(own_home: Home) -> None:
    ingle(own_home.root, "run", "hi", "--max-tokens", "2")
    [line] = ingle(own_home.root, "log", "--last", "1").stdout.splitlines()
    assert line.endswith("  tiny gave an answer of 2 tokens")
    [line] = ingle(own_home.root, "log", "--last", "1", "--facts").stdout.splitlines()
    assert "completion_tokens=2" in line
    [line] = ingle(own_home.root, "log", "--kind", "pull", "--subject", "tiny").stdout.splitlines()
    assert "tiny came here from file:" in line
    ingle(own_home.root, "key", "add", "laptop")
    ingle(own_home.root, "keep", "tiny", "--as", "twin")
    *_, added, kept = ingle(own_home.root, "log").stdout.splitlines()
    assert added.endswith("was added: the API key laptop")
    assert kept.endswith("twin was kept under this name, made of tiny")
    assert "No such fact" in ingle(own_home.root, "log", "--kind", "delta").stderr


def test_doctor_examines_everything(tiny_home: Path) -> None:
    findings = {entry["about"]: entry for entry in json.loads(ingle(tiny_home, "doctor", "--json").stdout)}
    for about in (
        "Ingle",
        "Python",
        "libraries",
        "CPU",
        "instructions",
        "kernel path",
        "memory",
        "home",
        "kernel cache",
        "self-test",
        "ledger",
    ):
        assert about in findings, about
    assert "agree with their naive references" in findings["self-test"]["value"]
    assert findings["model tiny"]["state"] == "ok"
    assert str(tiny_home) in findings["home"]["value"]
    assert "extra learn" in findings


@pytest.mark.journey
def test_doctor_says_what_it_knows_before_it_compiles(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingle(tiny_home, "doctor", "--kernels")  # so that this process has loaded what is not there below
    known = ""

    def build(progress: object) -> int:
        nonlocal known
        known = sys.stdout.buffer.getvalue().decode()  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr("ingle.kernels.jit.build", build)
    monkeypatch.setattr("ingle.kernels.jit.stored", lambda name: None)
    fresh = ingle(tiny_home, "doctor").stdout
    assert not known and "no kernel is compiled yet" in fresh and "`ingle home doctor --kernels` compiles and tests them all" in fresh
    everything = ingle(tiny_home, "doctor", "--kernels").stdout
    for about in ("Python", "memory", "home", "model tiny", "ledger", "extra learn"):
        assert f" {about} " in known
    assert "kernel cache" in everything.removeprefix(known)


def test_doctor_survives_what_is_broken(own_home: Home) -> None:
    own_home.database_file.write_bytes(b"not a database" * 100)
    (own_home.root / "config.toml").write_text("x = 1")
    said = ingle(own_home.root, "doctor", code=1).stdout
    assert "is not a known key" in said
    assert "✗ ledger" in said
    assert "✓ model tiny" in said


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"name": "core2", "vectors": "baseline", "byte dot product": "portable"}, "neither AVX2 nor NEON"),
        ({"name": "haswell", "vectors": "AVX2", "byte dot product": "maddubs"}, "without an instruction for dot products of bytes"),
    ],
    ids=["baseline", "haswell"],
)
def test_doctor_says_what_an_old_cpu_costs(about: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.kernels.cpu.describe", lambda: about)
    monkeypatch.setattr("ingle.cli.selftest.read_gb_per_s", lambda _threads: 1.5)
    findings = {finding.about: finding for finding in examine(Home(tmp_path / "none"))}
    assert words in findings["kernel path"].value
    assert findings["kernel path"].state == findings["weights read"].state == "slow"
    assert "slower" in findings["kernel path"].cure
    assert findings["home"].state == "missing"


@pytest.mark.parametrize("harm", ["template", "tokenizer"])
def test_a_hostile_model_is_refused_before_it_is_kept(tmp_path: Path, tiny_folder: Path, harm: str) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_folder, folder)
    if harm == "template":
        doubles = "{% set ns = namespace(a=[1]) %}{% for _ in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a|tojson }}"
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": doubles, "eos_token": "<|im_end|>"}))
    else:
        table = json.loads((folder / "tokenizer.json").read_bytes())
        grows = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
        table["normalizer"] = {"type": "Sequence", "normalizers": [grows] * 6}
        (folder / "tokenizer.json").write_text(json.dumps(table))
    said = ingle(tmp_path / "home", "pull", str(folder), code=4 if harm == "tokenizer" else 2).stderr
    assert "template" in said
    assert json.loads(ingle(tmp_path / "home", "list", "--json").stdout) == []
    assert not any((tmp_path / "home" / "staging").iterdir())


def test_a_model_that_breaks_off_at_its_first_step_is_dropped(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("ingle.engine.tryout._STEP_S", 0)
    monkeypatch.setattr("ingle.engine.tryout._STEP_S_PER_GB", 1)
    assert "can't take a first step" in ingle(tmp_path, "pull", str(tiny_folder), "--name", "mine", code=8).stderr
    assert json.loads(ingle(tmp_path, "list", "--json").stdout) == []
    assert kinds(tmp_path) == ["pull", "rm"]


def test_verify_models_finds_a_changed_pack(own_home: Home) -> None:
    [pack] = own_home.packs.glob("*/auto")
    (pack / "weights.bin").write_bytes((pack / "weights.bin").read_bytes()[:1000])
    assert "BROKEN model tiny" in ingle(own_home.root, "verify", "--models", code=7).stdout
    shutil.rmtree(pack)
    assert "Every file" in ingle(own_home.root, "verify", "--models").stdout
