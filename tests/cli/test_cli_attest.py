"""Proofs on the command line: attest, verify --bundle, export --sign, whose; and that forgotten words are in none of them."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.ethics.notary import KEY
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.ethics.place import PROGRAM


def answered(home: Home, question: str = "a question", code: int = 0, keep: bool = False) -> tuple[int, str]:
    """The fact of a new answer, and its words."""
    how = ("--max-tokens", "24", "--temperature", "0", "--json", "--keep" if keep else "--no-keep")
    said = ingle(home.root, "run", question, "tiny", *how, code=code)
    text = str(json.loads(said.stdout)["text"])
    line = ingle(home.root, "log", "--kind", "answer", "--last", "1", "--json").stdout
    return int(json.loads(line)["seq"]), text


def files_of(folder: Path) -> bytes:
    return b"\n".join(path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_facts_are_attested_and_verified(own_home: Home, tmp_path: Path) -> None:
    seq, _ = answered(own_home)
    out, card = tmp_path / "proof", tmp_path / "card.json"
    card.write_text('{"bits": 1.25}')
    told = json.loads(ingle(own_home.root, "attest", str(seq), "1", "--card", str(card), "--out", str(out), "--json").stdout)
    assert set(told["seqs"]) > {1, seq} and told["cards"] == ["card.json"]
    done = subprocess.run([sys.executable, "-I", str(PROGRAM), str(out), told["key"]], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f"fact {seq} is in it" in done.stdout
    empty = tmp_path / "elsewhere"
    said = ingle(empty, "verify", "--bundle", str(out), "--key", told["key"][:16])
    assert said.stdout == done.stdout.replace(f"'{told['key']}'", f"'{told['key'][:16]}'") and not empty.exists()
    assert "only its owner can tell you" in ingle(empty, "verify", "--bundle", str(out)).stderr
    assert "REFUSED" in ingle(empty, "verify", "--bundle", str(out), "--key", "00ff00ff", code=7).stdout
    (out / "card.json").write_text('{"bits": 1.24}')
    found = json.loads(ingle(empty, "verify", "--bundle", str(out), "--json", code=7).stdout)
    assert not found["sound"] and "NO" in "".join(found["lines"])
    assert "signer.key" in ingle(own_home.root, "log", "--facts").stdout
    assert "handed out with their proofs" in ingle(own_home.root, "log").stdout
    ingle(own_home.root, "verify")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("attest", "77", "--out", "new"), 3, "no fact 77"),
        (("attest", "chatcmpl-none", "--out", "new"), 3, "holds no answer chatcmpl-none"),
        (("attest", "1", "--out", "."), 2, "there already"),
        (("attest", "1", "--out", "new", "--card", "missing.json"), 6, "missing.json"),
        (("verify", "--bundle", "."), 7, "as `ingle prove attest` writes it"),
        (("verify", "--key", "ab"), 2, "--bundle DIR"),
        (("whose", "missing.txt"), 6, "missing.txt"),
        (("whose", "blank.txt"), 2, "must hold words"),
        (("whose", "binary.txt"), 2, "text in UTF-8"),
    ],
)
def test_bad_input(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    assert said in ingle(tiny_home, *arguments, code=code).stderr
    assert not (tmp_path / "new").exists()


def test_an_export_is_signed(own_home: Home, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    told = json.loads(ingle(own_home.root, "export", "tiny", "--format", "hf", "--out", str(out), "--sign", "--json").stdout)
    assert {"model.sig", "signer.pub", "config.json"} < {path.name for path in out.iterdir()}
    said = ingle(tmp_path / "elsewhere", "verify", "--bundle", str(out), "--key", told["signer"][:12]).stdout
    assert "All is as it was signed" in said and told["signer"] in said
    assert "must be signed with the key 00" in ingle(tmp_path / "elsewhere", "verify", "--bundle", str(out), "--key", "00ff", code=7).stderr
    line = json.loads(ingle(own_home.root, "log", "--kind", "export", "--json").stdout)
    assert line["facts"]["signed"] == told["signed"] and line["facts"]["signer"] == told["signer"]
    said = ingle(own_home.root, "export", "tiny", "--format", "hf", "--out", str(out), "--sign", "--force")
    assert "model_signing verify key" in said.stderr
    ingle(tmp_path / "elsewhere", "verify", "--bundle", str(out))
    (out / "config.json").write_text("{}")
    assert "config.json was changed" in ingle(tmp_path / "elsewhere", "verify", "--bundle", str(out), code=7).stderr
    one = tmp_path / "tiny.gguf"
    ingle(own_home.root, "export", "tiny", "--format", "gguf", "--out", str(one), "--sign")
    assert "signed: 1 file, key" in ingle(tmp_path / "elsewhere", "verify", "--bundle", str(one)).stdout


def test_a_lost_signing_key_is_said_and_accepted(own_home: Home, tmp_path: Path) -> None:
    ingle(own_home.root, "attest", "1", "--out", str(tmp_path / "one"))
    (own_home.keys / KEY).unlink()
    said = ingle(own_home.root, "attest", "1", "--out", str(tmp_path / "two"), code=7).stderr
    assert "must be the key that this home signs with" in said and "--accept-loss" in said and not (tmp_path / "two").exists()
    assert "BROKEN signer.key" in ingle(own_home.root, "verify", code=7).stdout
    assert "The loss is now fact" in ingle(own_home.root, "verify", "--accept-loss").stdout
    ingle(own_home.root, "attest", "1", "--out", str(tmp_path / "two"))
    for name in ("one", "two"):
        ingle(own_home.root, "verify", "--bundle", str(tmp_path / name))


def test_whose_tells_answers_and_says_what_it_cannot(own_home: Home, tmp_path: Path) -> None:
    nobody = ingle(tmp_path / "nothing", "whose", "-", given=b"some words", code=1)
    assert "No answer of this home" in nobody.stdout
    seq, text = answered(own_home)
    log = ingle(own_home.root, "log", "--json").stdout
    found = json.loads(ingle(own_home.root, "whose", "-", "--json", given=f"{text}\n".encode()).stdout)
    assert found["ours"] and [one["seq"] for one in found["said"]] == [seq]
    assert f"fact {seq}" in ingle(own_home.root, "whose", "-", given=text.encode()).stdout
    other = ingle(own_home.root, "whose", "-", given=b"words of somebody else who never asked this home anything", code=1)
    assert "(1 answer compared)" in other.stdout and "not kept" in other.stderr
    assert ingle(own_home.root, "log", "--json").stdout == log
    assert b"somebody else" not in own_home.database_file.read_bytes()
    (own_home.keys / "answers.key").unlink()
    lost = ingle(own_home.root, "whose", "-", given=text.encode(), code=1)
    assert "1 answer can't be compared: the key of their digests was lost" in lost.stderr


def test_forgotten_words_are_in_no_proof_and_no_export(own_home: Home, tmp_path: Path) -> None:
    words = "Zyzzogeton xylophonquixotry"
    ingle(own_home.root, "memory", "add", words, "--model", "tiny")
    listed = json.loads(ingle(own_home.root, "memory", "--json").stdout)
    example = (listed if isinstance(listed, list) else listed["data"])[0]["id"]
    answered(own_home, f"What of {words}?", keep=True)
    ingle(own_home.root, "forget", example)
    last = json.loads(ingle(own_home.root, "log", "--last", "1", "--json").stdout)["seq"]
    ingle(own_home.root, "attest", *map(str, range(1, last + 1)), "--out", str(tmp_path / "proof"))
    ingle(own_home.root, "export", "tiny", "--format", "hf", "--out", str(tmp_path / "hf"), "--sign")
    data = files_of(tmp_path)
    for name in ("proof/ledger.dsse.json", "hf/model.sig"):
        envelope = json.loads((tmp_path / name).read_bytes())
        data += base64.b64decode(envelope.get("dsseEnvelope", envelope)["payload"])
    for word in words.split():
        assert word.encode().lower() not in data.lower()
