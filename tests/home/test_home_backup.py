"""A backup holds the home as it is at one moment, whoever writes to it, and nothing that is not whole is written or restored."""

import io
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.app.house import check_ledger, open_ledger
from ingle.core.config import to_table
from ingle.core.digest import canonical_json, digest_bytes, digest_file
from ingle.core.errors import ConfigError, HomeError, IngleError, LedgerError
from ingle.core.progress import Progress
from ingle.core.report import Event
from ingle.home import restore as restoring
from ingle.home.archive import FOLDER, FORMAT, KEPT, MADE_AGAIN, MANIFEST, ArchivedFile, BackupManifest
from ingle.home.backup import BackedUp, back_up
from ingle.home.base import describe_base, write_base
from ingle.home.deltas import delta_tensors, put_delta
from ingle.home.kept import adopt, get_kept
from ingle.home.kept_file import KeptFile
from ingle.home.parts import adopt_part, find_part
from ingle.home.place import Home
from ingle.home.restore import Restored, restore
from ingle.home.staging import staging
from tests.waiting import wait_until

POSIX = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")


def quiet(_label: str, _done: int, _total: int | None) -> None: ...


def save(home: Home, path: Path, progress: Progress = quiet, force: bool = False) -> BackedUp:
    return back_up(home, path, check_ledger, progress, replace=force)


def bring_back(root: Path, path: Path, progress: Progress = quiet, digest: str = "") -> Restored:
    return restore(Home(root), path, check_ledger, progress, digest=digest)


def fill(home: Home, name: str = "mine", data: bytes = b"weights" * 9000) -> None:
    """A model of one file with a delta, and a fact."""
    with staging(home) as folder:
        (folder / "model.bin").write_bytes(data)
        base = describe_base((KeptFile("model.bin", len(data), digest_bytes(data)),), f"file:{name}", "", "")
        write_base(folder, base)
        adopt(home, folder, base, name)
    put_delta(home, "letters", "lora", base.digest, {"a": np.arange(6, dtype=np.float32)}, {"maker": "tune"})
    tell(home, name)


def tell(home: Home, subject: str) -> int:
    with open_ledger(home) as ledger:
        return ledger.append(Event("pull", subject)).seq


def facts(home: Home) -> list[str]:
    with open_ledger(home) as ledger:
        assert ledger.verify().problem is None
        return [row.subject for row in ledger.read()][::-1]


def remains(home: Home) -> set[str]:
    """Files that lie in a home, its locks and compiled kernels left out."""
    found = {path.relative_to(home.root).as_posix() for path in home.root.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("locks/", "cache/", "staging/thing")) and not name.endswith(".lock")}


@pytest.fixture
def full(home: Home) -> Home:
    fill(home)
    home.policy.write_text("[bits]\non = true\n")
    home.history.write_text('"hello"\n')
    (home.keys / "answers.key").write_text("ab" * 32)
    (home.keys / "answers.key").chmod(0o600)
    (home.root / "labels").mkdir()
    (home.root / "labels" / "x.json").write_text("{}")
    (home.federated / "0123").mkdir(parents=True)
    (home.federated / "0123" / "said.json").write_text("{}")
    for name in MADE_AGAIN:  # none of these comes along
        (home.root / name / "thing").mkdir(parents=True, exist_ok=True)
        (home.root / name / "thing" / "file").write_bytes(b"x" * 5000)
    return home


def test_what_comes_back_is_what_was_there(full: Home, tmp_path: Path) -> None:
    (full.root / "unknown").write_text("what is this?")
    done = save(full, tmp_path / "b.tar")
    back = Home(tmp_path / "back")
    restored = bring_back(back.root, done.path, digest=done.manifest.digest)
    assert restored.manifest == done.manifest and (restored.facts, restored.models) == (1, ("mine",)) == (done.facts, done.models)
    assert done.left_out == ("unknown",)
    kept = {name for name in remains(full) if not name.startswith((*MADE_AGAIN, "unknown", "ingle.db-"))}
    assert {file.path for file in done.manifest.files} == kept == remains(back)
    for name in kept - {"ingle.db"}:
        assert (back.root / name).read_bytes() == (full.root / name).read_bytes(), name
    assert facts(back) == facts(full) == ["mine"]
    assert get_kept(back, "mine+letters").deltas == get_kept(full, "mine+letters").deltas
    assert tell(back, "after") == 2, "its key and head go on"
    with tarfile.open(done.path) as tar:
        names = tar.getnames()
    assert names == [MANIFEST, *(FOLDER + file.path for file in done.manifest.files)], "any tar opens it"


@POSIX
def test_it_is_for_its_owner_alone(full: Home, tmp_path: Path) -> None:
    full.root.chmod(0o755)
    seen = set[int]()
    parts = list[Path]()

    def watch(_label: str, _done: int, _total: int | None) -> None:
        for path in tmp_path.glob(".b.tar.*"):
            parts.append(path)
            seen.add(stat.S_IMODE(path.stat().st_mode))

    done = save(full, tmp_path / "b.tar", watch)
    assert parts and seen | {stat.S_IMODE(done.path.stat().st_mode)} == {0o600}
    bring_back(tmp_path / "back", done.path)
    for path in (tmp_path / "back" / name for name in remains(Home(tmp_path / "back"))):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o444 if "bases" in path.parts else 0o600), path


def test_rows_that_come_meanwhile_never_leave_the_head_ahead(full: Home, tmp_path: Path) -> None:
    """The head is copied before the rows, whenever the rows come."""

    def write(label: str, _done: int, _total: int | None) -> None:
        tell(full, label)

    done = save(full, tmp_path / "b.tar", write)
    bring_back(tmp_path / "back", done.path)
    assert facts(Home(tmp_path / "back")) == facts(full)[: done.facts]
    assert len(facts(full)) > done.facts


def test_a_first_key_that_is_made_meanwhile_comes_along(home: Home, tmp_path: Path) -> None:
    with open_ledger(home):
        pass  # tables, and no key yet
    began = list[str]()

    def write(label: str, _done: int, _total: int | None) -> None:
        if not began:
            began.append(label)
            tell(home, "first")

    # What is written while the snapshot runs is not in it. So the key comes first, and the row before the second try.
    done = save(home, tmp_path / "b.tar", write)
    assert began == ["database"] and (home.keys / "ledger.key").exists()
    bring_back(tmp_path / "back", done.path)
    assert facts(Home(tmp_path / "back")) == ["first"]
    assert tell(Home(tmp_path / "back"), "second") == 2


WRITER = """
import sys
import time
from pathlib import Path
from ingle.app.house import open_ledger
from ingle.core.report import Event
from ingle.home.parts import adopt_part, find_part
from ingle.home.place import Home
with open_ledger(Home(Path(sys.argv[1]))) as ledger:
    print("ready", flush=True)
    while True:
        print(ledger.append(Event("pull", "other")).seq, flush=True)
        time.sleep(0.005)  # SQLite's lock has no queue: who never rests keeps the others out
"""


def test_while_others_write_each_backup_is_a_moment_of_the_home(full: Home, tmp_path: Path) -> None:
    rest, told = threading.Event(), list[int]()

    def write() -> None:
        while not rest.is_set():
            told.append(tell(full, "mine"))

    with subprocess.Popen([sys.executable, "-c", WRITER, str(full.root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        thread = threading.Thread(target=write)
        thread.start()
        try:
            before, others = list[int](), list[int]()
            for number in range(6):
                others.append(int(process.stdout.readline()))
                before.append(told[-1] if told else 0)
                done = save(full, tmp_path / f"{number}.tar")
                assert before[-1] <= done.facts, "what stood before it began is in it"
            wait_until(lambda: len(told) > 2, "this process has written, too")
        finally:
            rest.set()
            thread.join()
            process.kill()
        others += [int(line) for line in process.stdout.read().split()]
    assert len(others) >= 6, "the other one wrote all the while"
    everything = facts(full)
    for number in range(6):
        back = bring_back(tmp_path / f"back{number}", tmp_path / f"{number}.tar")
        assert back.facts is not None and facts(Home(tmp_path / f"back{number}")) == everything[: back.facts]
        assert back.facts >= before[number]


def test_nothing_is_taken_away_while_it_is_copied(full: Home, tmp_path: Path) -> None:
    """A lesson's delta goes without the lock that a backup holds; then it is in the backup whole, or not at all."""
    lesson = put_delta(full, "lesson", "lora", get_kept(full, "mine").base, {"a": np.ones(3, np.float32)}, {"lesson": "answers"})

    def take(label: str, _done: int, _total: int | None) -> None:
        if label == "database":
            shutil.rmtree(full.delta_folder(lesson.digest), ignore_errors=True)

    done = save(full, tmp_path / "b.tar", take)
    bring_back(tmp_path / "back", done.path)
    assert delta_tensors(Home(tmp_path / "back"), lesson)["a"].sum() == 3


def test_models_on_another_disk_come_along(full: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full.bases.rename(tmp_path / "elsewhere")
    full.bases.symlink_to(tmp_path / "elsewhere", target_is_directory=True)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    done = save(full, tmp_path / "b.tar")
    monkeypatch.undo()
    bring_back(tmp_path / "back", done.path)
    [model] = (tmp_path / "back" / "bases").glob("*/model.bin")
    assert not model.is_symlink() and model.read_bytes() == b"weights" * 9000


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("base", "model.bin of model mine is altered"), ("delta", "delta .* is not as it was kept"), ("row", "not those that were hashed"),
        ("head", "signed head says|cut off"), ("key", "must belong to ledger.pub"), ("lost key", "must be there to sign"),
        ("page", "must be readable and whole"),
    ],
)  # fmt: skip
def test_a_damaged_home_is_said_and_the_last_backup_stays(full: Home, tmp_path: Path, damage: str, said: str) -> None:
    for _ in range(3):
        tell(full, "more")
    first = save(full, tmp_path / "b.tar")
    digest = digest_file(first.path)
    with sqlite3.connect(full.database_file) as database:
        if damage == "row":
            database.execute("UPDATE ledger SET subject = 'other' WHERE seq = 2")
        elif damage == "head":
            database.execute("DELETE FROM ledger WHERE seq = 4")
        database.execute("COMMIT") if database.in_transaction else None
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    if damage in ("base", "delta"):
        [path] = full.root.glob("bases/*/model.bin" if damage == "base" else "deltas/*/tensors.safetensors")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)
    elif damage == "key":
        (full.keys / "ledger.key").write_text("11" * 32)
    elif damage == "lost key":
        (full.keys / "ledger.key").unlink()
    elif damage == "page":
        with full.database_file.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(IngleError, match=said) as refused:
        save(full, first.path, force=True)
    assert isinstance(refused.value, HomeError | LedgerError) and refused.value.cure
    assert digest_file(first.path) == digest
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["b.tar"]
    assert not any(full.staging.glob("[0-9]*"))


def test_a_disk_that_keeps_other_bytes_is_noticed(full: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def rot(handle: int) -> None:
        real(handle)
        for part in tmp_path.glob(".b.tar.*.part"):
            if os.path.sameopenfile(handle, os.open(part, os.O_RDONLY)):
                data = part.read_bytes()
                at = data.rindex(b"weights")
                os.pwrite(handle, b"W", at)

    monkeypatch.setattr(os, "fsync", rot)
    with pytest.raises(HomeError, match="is not as it was kept"):
        save(full, tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_places_that_can_not_be_are_refused(full: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="outside of the home"):
        save(full, full.root / "b.tar")
    (tmp_path / "way").symlink_to(full.root)
    with pytest.raises(ConfigError, match="outside of the home"):
        save(full, tmp_path / "way" / "b.tar")
    with pytest.raises(HomeError, match="There is no home"):
        save(Home(tmp_path / "nowhere"), tmp_path / "b.tar")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(ConfigError, match="already"):
        save(full, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "mine"
    save(full, tmp_path / "b.tar", force=True)


def test_interrupted_at_any_moment_nothing_is_left(full: Home, tmp_path: Path) -> None:
    class Interrupt(KeyboardInterrupt):
        pass

    def stopping_at(number: int) -> Progress:
        calls = 0

        def progress(_label: str, _done: int, _total: int | None) -> None:
            nonlocal calls
            calls += 1
            if calls > number:
                raise Interrupt

        return progress

    before, number = remains(full), 0
    while True:
        try:
            done = save(full, tmp_path / "b.tar", stopping_at(number))
            break
        except Interrupt:
            assert [path.name for path in tmp_path.iterdir()] == ["home"] and remains(full) == before
            number += 1
    assert number > 15
    moments, back = number, Home(tmp_path / "back")
    while True:
        try:
            bring_back(back.root, done.path, stopping_at(number - moments))
            break
        except Interrupt:
            assert not remains(back)
            number += 1
    assert number - moments > 10 and facts(back) == ["mine"]


def test_what_a_kill_left_goes_with_the_next(full: Home, tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from ingle.app.house import check_ledger
from ingle.home.backup import back_up
from ingle.home.parts import adopt_part, find_part
from ingle.home.place import Home
from ingle.home.restore import restore
def die(label, done, total):
    if label == "checking":
        os._exit(9)
import sys
if sys.argv[1] == "back up":
    back_up(Home(Path({str(full.root)!r})), Path({str(tmp_path / "b.tar")!r}), check_ledger, die)
restore(Home(Path({str(tmp_path / "back")!r})), Path({str(tmp_path / "b.tar")!r}), check_ledger, die)
"""
    assert subprocess.run([sys.executable, "-c", program, "back up"], check=False).returncode == 9
    assert len(list(tmp_path.glob(".b.tar.*"))) == 1 and len(list(full.staging.glob("[0-9]*"))) == 1
    save(full, tmp_path / "b.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "home"] and not any(full.staging.glob("[0-9]*"))
    assert subprocess.run([sys.executable, "-c", program, "restore"], check=False).returncode == 9
    assert any((tmp_path / "back" / "staging").iterdir())
    bring_back(tmp_path / "back", tmp_path / "b.tar")
    assert not any((tmp_path / "back" / "staging").iterdir())


@pytest.mark.parametrize("name", ["ingle.db", "models/mine.json", "keys/ledger.key", "packs/x/y", "states/x", "tuning/x/run.json", "mine"])
def test_a_home_that_holds_anything_is_refused(full: Home, tmp_path: Path, name: str) -> None:
    save(full, tmp_path / "b.tar")
    back = Home(tmp_path / "back").create()
    (back.root / name).parent.mkdir(exist_ok=True, parents=True)
    (back.root / name).write_text("mine")
    with pytest.raises(HomeError, match=f"holds {Path(name).parts[0]}"):
        bring_back(back.root, tmp_path / "b.tar")
    assert remains(back) == {name} and (back.root / name).read_text() == "mine"


def test_a_home_that_was_only_looked_at_is_empty(full: Home, tmp_path: Path) -> None:
    save(full, tmp_path / "b.tar")
    back = Home(tmp_path / "back").create()
    (back.jit / "kernel.so").write_text("compiled")
    (back.keys / "ledger.lock").write_text("")
    bring_back(back.root, tmp_path / "b.tar")
    assert facts(back) == ["mine"] and (back.jit / "kernel.so").exists()


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_move_that_fails_leaves_the_home_empty(full: Home, tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save(full, tmp_path / "b.tar")
    real, calls = Path.replace, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == nth:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(HomeError, match="Input/output error"):
        bring_back(tmp_path / "back", tmp_path / "b.tar")
    monkeypatch.undo()
    assert not remains(Home(tmp_path / "back"))
    bring_back(tmp_path / "back", tmp_path / "b.tar")


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_kill_between_two_moves_is_taken_up_again(full: Home, tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save(full, tmp_path / "b.tar")
    real, calls, back = Path.replace, [], Home(tmp_path / "back")

    def stop(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == nth:
            shutil.copytree(back.root, tmp_path / "killed")
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(HomeError):
        bring_back(back.root, tmp_path / "b.tar")
    monkeypatch.undo()
    killed = Home(tmp_path / "killed")
    assert remains(killed) or nth == 1
    if nth > 5:  # keys are there: as if it had been used meanwhile
        shutil.copytree(killed.root, tmp_path / "used")
        (tmp_path / "used" / "keys" / "ledger.head").write_text("moved")
        with pytest.raises(HomeError, match="holds keys"):
            bring_back(tmp_path / "used", tmp_path / "b.tar")
    bring_back(killed.root, tmp_path / "b.tar")
    assert facts(killed) == ["mine"]


def test_another_backup_than_the_named_one_is_refused(full: Home, tmp_path: Path) -> None:
    done = save(full, tmp_path / "b.tar")
    with pytest.raises(HomeError, match="must have the digest"):
        bring_back(tmp_path / "back", done.path, digest="0" * 64)
    assert not remains(Home(tmp_path / "back"))
    bring_back(tmp_path / "back", done.path, digest=done.manifest.digest.upper())


# What a stranger may write


Members = list[tuple[tarfile.TarInfo, bytes]]


def members_of(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def packed(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return path


def named(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, data


def forged(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    """An archive that agrees with its own manifest."""
    listed = tuple(ArchivedFile(name, len(data), digest_bytes(data)) for name, data in files)
    manifest = BackupManifest(FORMAT, "2026-01-01T00:00:00+00:00", listed)
    first = named(MANIFEST, canonical_json(to_table(manifest)))
    return packed(path, [first, *(named(FOLDER + name, data) for name, data in files)])


def refused(tmp_path: Path, path: Path, said: str) -> None:
    """The backup is refused, the home is empty, and nothing was written beside it."""
    before = sorted(tmp_path.rglob("*"))
    back = tmp_path / "refused" / "back"
    with pytest.raises(HomeError, match=said):
        bring_back(back, path)
    assert not remains(Home(back)) and not any(back.glob("staging/*"))
    shutil.rmtree(tmp_path / "refused", ignore_errors=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../out", "keys/../../out", "keys/./x", "keys//x", "keys/", "", ".", "..", "models\\..\\..\\out", "C:/x", "keys/C:x",
        "keys/a\x00b",
        "keys/a\nb", "keys/\ud800",
        "cache/jit/kernel.nbi", "packs/x", "locks/x", "staging/x", "tuning/x", "bin/ingle", "Keys/x", "ingle.db-wal",
    ],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    listed = {"path": name, "size": 1, "sha256": digest_bytes(b"x")}
    first = json.dumps({"format": FORMAT, "made_at": "2026-01-01T00:00:00+00:00", "files": [listed]}).encode()
    path = packed(tmp_path / "b.tar", [named(MANIFEST, first), named("home/x", b"x")])
    refused(tmp_path, path, "must be something that a home keeps|must be a plain path")


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "home/keys/ledger.key"), (tarfile.FIFOTYPE, ""), (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""), (tarfile.DIRTYPE, ""), (tarfile.CONTTYPE, ""), (tarfile.GNUTYPE_SPARSE, ""), (tarfile.AREGTYPE, ""),
    ],
)  # fmt: skip
def test_members_that_are_no_plain_files_are_refused(full: Home, tmp_path: Path, kind: bytes, link: str) -> None:
    members = members_of(save(full, tmp_path / "b.tar").path)
    for number in range(len(members)):
        changed = [named(member.name, data, kind, link) if at == number else (member, data) for at, (member, data) in enumerate(members)]
        if kind == tarfile.GNUTYPE_SPARSE:
            changed[number][0].size = len(members[number][1])
        refused(tmp_path, packed(tmp_path / "changed.tar", changed), "must be a whole backup")


def test_members_must_be_those_of_the_manifest_in_its_order(full: Home, tmp_path: Path) -> None:
    members = members_of(save(full, tmp_path / "b.tar").path)
    extra = named("home/keys/more", b"x")
    for changed in (
        [*members, extra], [extra, *members], [members[0], extra, *members[1:]], members[1:], members[:-1], members[:2] + members[3:],
        [members[0], *members[:0:-1]], [*members, members[-1]], [*members, members[0]], [], [members[0]],
        [*members, named("/etc/passwd", b"x")], [*members, named("../out", b"x", tarfile.SYMTYPE, "/")],
    ):  # fmt: skip
        refused(tmp_path, packed(tmp_path / "changed.tar", changed), "must be a whole backup")


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    whole = {"format": FORMAT, "made_at": "2026-01-01T00:00:00+00:00", "files": []}
    one = {"path": "history", "size": 1, "sha256": digest_bytes(b"x")}
    for table in (
        {}, [], None, 3, "x", whole | {"format": "ingle-backup-2"}, whole | {"made_at": "now"}, whole | {"more": 1},
        whole | {"files": None},
        whole | {"files": [one, one]}, whole | {"files": [one | {"size": -1}]}, whole | {"files": [one | {"size": 2**70}]},
        whole | {"files": [one | {"size": True}]}, whole | {"files": [one | {"sha256": None}]}, whole | {"files": [one | {"path": 3}]},
        whole | {"files": [one | {"size": 0}]}, whole | {"files": [one | {"size": 2}]}, whole | {"files": [one | {"sha256": "0" * 64}]},
    ):  # fmt: skip
        path = packed(tmp_path / "b.tar", [named(MANIFEST, json.dumps(table).encode()), named("home/history", b"x")])
        refused(tmp_path, path, "must be a whole backup")
    for data in (b"", b"{", b"[" * 100_000, b"\xff", b'{"files": NaN}'):
        refused(tmp_path, packed(tmp_path / "b.tar", [named(MANIFEST, data)]), "must be a whole backup")


def test_files_that_are_no_backup_are_refused(full: Home, tmp_path: Path) -> None:
    import gzip

    whole = save(full, tmp_path / "b.tar").path.read_bytes()
    for data in (b"", b"hello", b"\0" * 10240, gzip.compress(whole), whole[512:], b"PK\x03\x04" + whole):
        (tmp_path / "changed.tar").write_bytes(data)
        refused(tmp_path, tmp_path / "changed.tar", "must be a whole backup")
    for end in range(0, len(whole) - 10240, 3333):
        (tmp_path / "changed.tar").write_bytes(whole[:end])
        refused(tmp_path, tmp_path / "changed.tar", "must be a whole backup")
    (tmp_path / "changed.tar").unlink()
    with pytest.raises(HomeError, match="No such file"):
        bring_back(tmp_path / "back", tmp_path / "changed.tar")
    with pytest.raises(HomeError, match="Is a directory"):
        bring_back(tmp_path / "back", tmp_path)


@pytest.mark.parametrize(
    "headers",
    [
        {"size": "-10240"}, {"size": "-1"}, {"path": "../out"}, {"path": "/etc/passwd"}, {"linkpath": "/etc/passwd"},
        {"size": "999999999999"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "home/history", "GNU.sparse.realsize": "99999999999"},
        {"GNU.sparse.map": "0,1,99999999,1", "GNU.sparse.size": "100000000"}, {"GNU.sparse.size": "-1"},
    ],
)  # fmt: skip
def test_extended_headers_say_nothing_that_the_manifest_does_not(tmp_path: Path, headers: dict[str, str]) -> None:
    files = [("history", b"x" * 600), ("keys/answers.key", b"y")]
    members = members_of(forged(tmp_path / "b.tar", files))
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            if member.name == "home/history":
                # tarfile itself would correct such headers, so they are made by hand.
                tar.fileobj.write(tarfile.TarInfo._create_pax_generic_header(headers, tarfile.XHDTYPE, "utf-8"))  # type: ignore[attr-defined,union-attr]
                tar.fileobj.write(member.tobuf(tarfile.USTAR_FORMAT) + data.ljust(1024, b"\0"))  # type: ignore[union-attr]
                tar.offset += 512 * 6
            else:
                tar.addfile(member, io.BytesIO(data))
    if "linkpath" in headers:  # of a plain file it means nothing
        bring_back(tmp_path / "back", tmp_path / "b.tar")
        assert (tmp_path / "back" / "history").read_bytes() == b"x" * 600
        return
    refused(tmp_path, tmp_path / "b.tar", "must be a whole backup")


def test_one_changed_byte_is_found_or_changes_nothing(full: Home, tmp_path: Path) -> None:
    done = save(full, tmp_path / "b.tar")
    whole, draw, found = done.path.read_bytes(), random.Random(7), 0
    with tarfile.open(done.path) as tar:
        heads = [at for member in tar for at in range(member.offset, member.offset_data)]
    for at in (*draw.sample(heads, 150), *draw.sample(range(len(whole)), 150)):
        data = bytearray(whole)
        data[at] ^= draw.randrange(1, 256)
        back = Home(tmp_path / "back")
        (tmp_path / "changed.tar").write_bytes(data)
        try:
            restored = bring_back(back.root, tmp_path / "changed.tar")
        except HomeError:
            found += 1
            assert not remains(back)
        else:  # padding, or a field of a header that is not used
            assert restored.manifest == done.manifest
            for file in done.manifest.files:
                if file.path != "ingle.db":
                    assert digest_file(back.root / file.path) == file.sha256
        shutil.rmtree(back.root, ignore_errors=True)
    assert found > 150


def test_what_agrees_with_its_own_manifest_is_verified_all_the_same(full: Home, tmp_path: Path) -> None:
    """Whoever changes a file and the manifest too still meets the digests of bases and deltas, and the ledger's signatures."""
    members = members_of(save(full, tmp_path / "b.tar").path)
    files = [(member.name.removeprefix(FOLDER), data) for member, data in members[1:]]

    def changed(name: str, change: Callable[[bytes], bytes | None]) -> Path:
        new = [(path, change(data) if path.endswith(name) else data) for path, data in files]
        return forged(tmp_path / "changed.tar", [(path, data) for path, data in new if data is not None])

    bring_back(tmp_path / "same", changed("nothing", lambda data: data))
    for name, said in (
        ("model.bin", "altered"),
        ("tensors.safetensors", "delta"),
        ("delta.json", "delta"),
        ("mine.json", "file of model mine"),
    ):
        with pytest.raises(HomeError, match=said):
            bring_back(tmp_path / "back", changed(name, lambda data: data[:-9] + b"x" + data[-8:]))
    for name in ("ledger.head", "ledger.key", "base.json", "model.bin"):
        with pytest.raises(IngleError):
            bring_back(tmp_path / "back", changed(name, lambda _: None))
    (tmp_path / "other.db").write_bytes(dict(files)["ingle.db"])
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("UPDATE ledger SET facts = '{}', subject = 'forged'")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with pytest.raises(LedgerError, match="not those that were hashed"):
        bring_back(tmp_path / "back", changed("ingle.db", lambda _: (tmp_path / "other.db").read_bytes()))
    assert not remains(Home(tmp_path / "back"))


def test_two_names_that_are_one_file_somewhere_write_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = forged(tmp_path / "b.tar", [("models/a.json", b"one"), ("models/a.json/b", b"two")])
    refused(tmp_path, path, "must be readable and writable")


def test_every_name_in_a_home_is_kept_or_made_again() -> None:
    from ingle.home import place

    listed = {
        line.split()[0].split("/")[0] for line in (place.__doc__ or "").splitlines() if "/" in line.split("  ")[0] or ".db" in line[:9]
    }
    named_elsewhere = {"config.toml", "policy.toml", "history", "learner.json", "forgetting"}
    assert listed | named_elsewhere == {*KEPT, *MADE_AGAIN}
    assert not {*KEPT} & {*MADE_AGAIN}
    assert {*restoring._MAY_BE_THERE} < {*MADE_AGAIN}


def test_facts_in_a_database_server_are_not_in_it(full: Home, tmp_path: Path, postgres_url: str) -> None:
    other = replace(full, root=tmp_path / "other", other_database=postgres_url).create()
    fill(other)
    done = save(other, tmp_path / "b.tar")
    assert not done.manifest.has_database and done.facts == 1
    tell(other, "later")  # as it goes on, before its own backup is made
    back = restore(replace(other, root=tmp_path / "back"), done.path, check_ledger, quiet)
    assert back.facts == 2
    alone = bring_back(tmp_path / "alone", done.path)
    assert alone.facts is None and remains(Home(tmp_path / "alone")) == {file.path for file in done.manifest.files}
    inside = save(full, tmp_path / "inside.tar")
    with pytest.raises(HomeError, match="INGLE_DATABASE_URL names another database"):
        restore(replace(other, root=tmp_path / "more"), inside.path, check_ledger, quiet)


def test_parts_come_along(full: Home, tmp_path: Path) -> None:
    data = b"a voice" * 3000
    with staging(full) as folder:
        (folder / "voice.onnx").write_bytes(data)
        base = describe_base((KeptFile("voice.onnx", len(data), digest_bytes(data)),), "catalogue:voice", "", "")
        write_base(folder, base)
        adopt_part(full, folder, base, "voice")
    save(full, tmp_path / "b.tar")
    bring_back(tmp_path / "back", tmp_path / "b.tar")
    assert (find_part(Home(tmp_path / "back"), "voice") / "voice.onnx").read_bytes() == data
    path = full.base_folder(base.digest) / "voice.onnx"
    path.chmod(0o600)
    path.write_bytes(b"b" * len(data))
    with pytest.raises(HomeError, match=r"voice\.onnx of part voice is altered"):
        save(full, tmp_path / "c.tar")
