"""The signature of exported models, by our own check and by OpenSSF's own tool.

That tool (model_signing of the package model-signing, which also needs pyopenssl) is what INGLE_TEST_MODEL_SIGNING names, else the one in
the path. Without it those tests are skipped; with INGLE_TEST_NEEDS_MODEL_SIGNING they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.core.errors import HomeError, LedgerError
from ingle.ethics.model_signature import check_model, sign_model, signature_of
from ingle.ethics.notary import KEY, Notary, notary
from ingle.home.database import open_database
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS
from tests.ethics.place import make_home


@pytest.fixture
def signer(tmp_path: Path) -> Notary:
    home = make_home(tmp_path / "home", 1)
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    made = notary(home, Ledger(engine, home.keys))
    engine.dispose()
    return made


@pytest.fixture
def folder(tmp_path: Path, signer: Notary) -> Path:
    """A signed folder."""
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    for name, data in {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 99, "a-b.txt": b"", "sub/é.txt": b"x"}.items():
        (made / name).write_bytes(data)
    sign_model(made, signer)
    return made


def _edit(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")


CHANGES: dict[str, Callable[[Path], object]] = {
    "model.safetensors was changed": _edit,
    "new.txt was added": lambda folder: (folder / "new.txt").touch(),
    "sub/new was added": lambda folder: (folder / "sub" / "new").touch(),
    "config.json is missing": lambda folder: (folder / "config.json").unlink(),
    "config.json is missing ": lambda folder: (folder / "config.json").rename(folder / "other.json"),
    "a-b.txt was changed": lambda folder: (folder / "a-b.txt").write_bytes(b"\n"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_signed_is_accepted_and_every_change_named(folder: Path, what: str) -> None:
    found = check_model(folder)
    assert found.files == 5  # the public key is one of them
    for name in (".gitattributes", ".gitignore"):
        (folder / name).touch()
    assert check_model(folder).files == 5
    CHANGES[what](folder)
    with pytest.raises(LedgerError, match=f"not as it was signed: {what.strip()}"):
        check_model(folder)


def test_a_signature_of_another_key_or_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    signature, public = signature_of(folder)
    whole, pem = signature.read_bytes(), public.read_bytes()
    for damaged in (
        whole[:-20],
        b"{}",
        b"",
        b"\xff",
        whole.replace(b'"payload":"e', b'"payload":"f'),
        whole.replace(b"in-toto+json", b"json"),
    ):
        signature.write_bytes(damaged)
        with pytest.raises(LedgerError, match=r"not a signature by the key|must be a model signature"):
            check_model(folder)
    signature.write_bytes(whole)
    other = make_home(tmp_path / "other", 1)
    engine = open_database(other.database_url, {"ledger": MIGRATIONS})
    public.write_bytes(notary(other, Ledger(engine, other.keys)).public)
    engine.dispose()
    with pytest.raises(LedgerError, match="not a signature by the key"):
        check_model(folder)
    public.write_bytes(pem)
    check_model(folder)
    public.unlink()
    with pytest.raises(HomeError, match=r"signer\.pub"):
        check_model(folder)


def test_one_file_and_links(tmp_path: Path, signer: Notary) -> None:
    one = tmp_path / "m.gguf"
    one.write_bytes(b"gguf")
    sign_model(one, signer)
    assert signature_of(one) == (tmp_path / "m.gguf.sig", tmp_path / "m.gguf.pub")
    assert check_model(one).files == 1
    one.write_bytes(b"other")
    with pytest.raises(LedgerError, match=r"m\.gguf was changed"):
        check_model(one)
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "x").symlink_to(one)
    with pytest.raises(LedgerError, match="plain file"):
        sign_model(folder, signer)


@pytest.fixture
def official() -> str:
    """Path of OpenSSF's tool."""
    found = os.environ.get("INGLE_TEST_MODEL_SIGNING") or shutil.which("model_signing")
    if not found:
        reason = "model_signing (pip install model-signing pyopenssl) isn't in the path, and INGLE_TEST_MODEL_SIGNING names none"
        if os.environ.get("INGLE_TEST_NEEDS_MODEL_SIGNING"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def ask(official: str, model: Path) -> "subprocess.CompletedProcess[str]":
    signature, public = signature_of(model)
    command = [official, "verify", "key", str(model), "--signature", str(signature), "--public_key", str(public)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_official_tool_accepts_it_and_refuses_changes(official: str, folder: Path, tmp_path: Path, signer: Notary) -> None:
    one = tmp_path / "m.gguf"
    one.write_bytes(b"gguf")
    sign_model(one, signer)
    for model in (folder, one):
        done = ask(official, model)
        assert done.returncode == 0, done.stdout + done.stderr
    _edit(folder)
    done = ask(official, folder)
    assert done.returncode != 0 and "Hash mismatch" in done.stdout + done.stderr
    sign_model(folder, signer)
    (folder / "added").touch()
    done = ask(official, folder)
    assert done.returncode != 0 and "Extra files" in done.stdout + done.stderr


def test_what_the_official_tool_signs_with_our_key_we_accept(official: str, folder: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    signature, _ = signature_of(folder)
    signature.unlink()
    command = [official, "sign", "key", str(folder), "--signature", str(signature), "--private_key", str(home.keys / KEY)]
    subprocess.run(command, capture_output=True, check=True)
    assert check_model(folder).files == 5
