"""Bundles for strangers: their program accepts what was written and refuses every change of it."""

import ast
import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from ingle.core.errors import ConfigError, LedgerError, NotKept
from ingle.core.report import Event
from ingle.ethics.bundle import check_bundle
from ingle.ethics.notary import KEY
from ingle.home.place import Home
from tests.ethics.place import PROGRAM, bundle, fingerprint, load_bench, make_home, record, refused, run, write

CARD = b'{"model": "smollm2", "value": 0.42}'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def test_the_program_needs_forty_lines_and_cryptography_alone() -> None:
    text = PROGRAM.read_text("utf-8")
    tree = ast.parse(text)
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"base64", "hashlib", "json", "sys", "pathlib", "cryptography"}
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(lines) <= 40


def test_a_stranger_verifies_facts_and_cards(home: Home, tmp_path: Path) -> None:
    files = bundle(home, tmp_path / "out", (3, 5), {"card.json": CARD})
    assert set(files) == {"ledger.dsse.json", "card.json", "card.dsse.json", "signer.pub", "ledger.pub", "verify.py"}
    key = fingerprint(home)
    for done in (run(tmp_path / "out"), run(tmp_path / "out", key), run(tmp_path / "out", key[:8], tmp_path / "out" / "verify.py")):
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout
        assert "fact 3 is in it" in said and "fact 5 is in it" in said and "card.json is as card.dsse.json says" in said
        assert key in said and "Whether facts are true" in said
    wrong = run(tmp_path / "out", "0123456789")
    assert wrong.returncode == 1 and "REFUSED: this bundle proves nothing." in wrong.stderr
    checked = check_bundle(tmp_path / "out", key[:8])
    assert checked.sound and checked.lines == tuple(said.splitlines())
    assert not check_bundle(tmp_path / "out", "ffff0000").sound


def test_that_facts_were_handed_out_is_a_fact(home: Home, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder will do
    files = bundle(home, tmp_path / "out", (3, 5))
    found = sqlite3.connect(home.database_file).execute("SELECT kind, facts FROM ledger WHERE seq > 12 ORDER BY seq").fetchall()
    assert [kind for kind, _ in found] == [KEY, "attest"]
    facts = json.loads(found[1][1])
    assert facts["seqs"] == "3 5" and facts["statement"] == hashlib.sha256(files["ledger.dsse.json"]).hexdigest()


def test_every_kind_of_change_is_refused(home: Home, tmp_path: Path) -> None:
    """A thousand by the program itself: bench/proofs.py."""
    older = bundle(home, tmp_path / "older", (3,), {"card.json": CARD})
    record(home, Event("measure", "smollm2", {"value": 0.43}))
    files = bundle(home, tmp_path / "out", (3, 5, 8), {"card.json": CARD.replace(b"42", b"43")})
    other = make_home(tmp_path / "other")
    stranger = bundle(other, tmp_path / "stranger", (3,), {"card.json": CARD})
    key = fingerprint(home)
    assert not refused(tmp_path / "out", key) and not refused(tmp_path / "older", key)
    assert not refused(tmp_path / "stranger"), "it is sound, and only its key tells whose it is"
    mutations = load_bench("mutations")
    counted = Counter[str]()
    for what, changed in islice(mutations.mutations(files, older, stranger, seed=1), 130):
        folder = write(tmp_path / "changed", changed)
        assert refused(folder, key), what
        if counted[what] == 0:
            done = run(folder, key)
            assert done.returncode == 1 and "REFUSED" in done.stdout + done.stderr, what
        counted[what] += 1
        shutil.rmtree(folder)
    assert set(counted) == set(mutations.KINDS)


def test_a_folder_or_a_link_within_is_refused(home: Home, tmp_path: Path) -> None:
    bundle(home, tmp_path / "out")
    (tmp_path / "out" / "folder").mkdir()
    assert refused(tmp_path / "out")
    (tmp_path / "out" / "folder").rmdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "out" / "verify.py")
    assert refused(tmp_path / "out")


def test_an_archive_holds_the_same(home: Home, tmp_path: Path) -> None:
    from ingle.ethics.bundle import attest
    from ingle.home.database import open_database
    from ingle.ledger.table import MIGRATIONS

    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    attest(home, engine, (4,), {}, tmp_path / "proof.zip")
    engine.dispose()
    with zipfile.ZipFile(tmp_path / "proof.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert run(tmp_path / "unpacked" / "proof", fingerprint(home)).returncode == 0
    with pytest.raises(LedgerError, match="Unpack it first"):
        check_bundle(tmp_path / "proof.zip")


def test_a_key_that_rotated_goes_on_proving(home: Home, tmp_path: Path) -> None:
    from ingle.home.database import open_database
    from ingle.ledger.chain import Ledger
    from ingle.ledger.table import MIGRATIONS

    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    Ledger(engine, home.keys).rotate()
    engine.dispose()
    bundle(home, tmp_path / "out", (2, 13, 14))
    assert run(tmp_path / "out", fingerprint(home)).returncode == 0


def test_what_cannot_be_attested(home: Home, tmp_path: Path) -> None:
    before = sqlite3.connect(home.database_file).execute("SELECT COUNT(*) FROM ledger").fetchone()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ConfigError, match="there already"):
        bundle(home, tmp_path / "taken")
    for name in ("ledger.json", "signer.pub", "x.dsse.json", ".card", "a\nb"):
        with pytest.raises(ConfigError, match="file name of its own"):
            bundle(home, tmp_path / "out", (3,), {name: CARD})
    with pytest.raises(ConfigError, match="file name of its own"):
        bundle(home, tmp_path / "out", (3,), {"card.json": CARD, "card.yaml": CARD})
    assert sqlite3.connect(home.database_file).execute("SELECT COUNT(*) FROM ledger").fetchone() == before
    with pytest.raises(NotKept, match="no fact 99"):
        bundle(home, tmp_path / "out", (3, 99))
    with sqlite3.connect(home.database_file) as database:
        database.execute("UPDATE ledger SET facts = '{}' WHERE seq = 3")
    with pytest.raises(LedgerError, match="can't be proven"):
        bundle(home, tmp_path / "out", (3,))
    assert not (tmp_path / "out").exists()
    with pytest.raises(LedgerError, match="folder with ledger"):
        check_bundle(tmp_path / "taken")
