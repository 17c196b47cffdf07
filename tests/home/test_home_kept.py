"""Names, bases and what is freed; and a base that was damaged is found out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError, HomeError, NotKept
from ingle.home.base import MANIFEST, base_digest, list_bases, read_base, verify_base
from ingle.home.deltas import put_delta, stack_digest
from ingle.home.kept import Kept, adopt, get_kept, keep, list_kept, remove
from ingle.home.kept_file import KeptFile
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.staging import discard, staging, sweep_staging


def nothing(folder: Path) -> None: ...


def pull_bytes(home: Home, tmp_path: Path, data: bytes, name: str) -> Kept:
    path = tmp_path / "source" / f"{name}.gguf"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return pull(home, str(path), nothing).kept


def test_models_share_a_base_and_the_last_one_takes_it_along(home: Home, tmp_path: Path) -> None:
    one = pull_bytes(home, tmp_path, b"weights" * 100, "one")
    two = keep(home, "two", one.base)
    assert [kept.name for kept in list_kept(home)] == ["one", "two"]
    assert get_kept(home, "two") == two
    home.pack_folder(one.base).mkdir()
    (home.pack_folder(one.base) / "packed").write_bytes(b"x" * 1000)
    freed = remove(home, "one")
    assert (freed.bases, freed.nbytes) == ((), 0)
    assert home.base_folder(one.base).exists()
    freed = remove(home, "two")
    assert freed.bases == (one.base,)
    assert freed.nbytes >= 1700
    assert list(home.bases.iterdir()) == list(home.packs.iterdir()) == list(home.staging.iterdir()) == []
    assert list_kept(home) == []


def test_an_unknown_name_says_what_there_is(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotKept, match="Nothing is kept yet"):
        get_kept(home, "smollm2")
    pull_bytes(home, tmp_path, b"1", "smollm2")
    with pytest.raises(NotKept, match="Did you mean smollm2"):
        get_kept(home, "smolm2")
    with pytest.raises(NotKept, match="Kept here: smollm2"):
        remove(home, "zzz")
    with pytest.raises(NotKept, match="Pull it first"):
        keep(home, "x", "0" * 64)


def test_a_home_that_does_not_exist_lists_nothing(tmp_path: Path) -> None:
    assert list_kept(Home(tmp_path / "none")) == []
    assert list_bases(Home(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["", "a+b", "../x", "a/b", ".hidden", "-rf", "a b", "é", "x" * 101, "a\n", "con\0", "a\\b"])
def test_names_that_no_model_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        check_name(name)


@given(st.text(max_size=12))
def test_a_name_never_leaves_its_folder(name: str) -> None:
    try:
        check_name(name)
    except ConfigError:
        return
    assert (Path("models") / f"{name}.json").parent == Path("models")
    assert (Path("models") / f"{name}.json").resolve().parent == Path("models").resolve()


def test_a_name_is_not_given_twice(home: Home, tmp_path: Path) -> None:
    one, two = pull_bytes(home, tmp_path, b"1", "one"), pull_bytes(home, tmp_path, b"2", "two")
    assert keep(home, "one", one.base) == one
    with pytest.raises(ConfigError, match=r"The name one is taken.*one\.gguf.*ingle rm one"):
        keep(home, "one", two.base)
    with pytest.raises(ConfigError, match="upper and lower case"):
        keep(home, "One", two.base)
    assert keep(home, "one", two.base, replace=True).base == two.base
    assert not home.base_folder(one.base).exists()


def test_deltas_are_kept_in_order_and_protect_their_base(home: Home, tmp_path: Path) -> None:
    one = pull_bytes(home, tmp_path, b"1", "one")
    first = put_delta(home, "first", "lora", one.base, {"a": np.ones(3, np.float32)}, {})
    second = put_delta(home, "second", "lora", stack_digest(one.base, [first.digest]), {"a": np.ones(3, np.float32)}, {})
    kept = keep(home, "one", one.base, [first.digest, second.digest], replace=True)
    assert get_kept(home, "one") == kept
    assert kept.deltas == (first.digest, second.digest)
    source = tmp_path / "source" / "one.gguf"
    source.write_bytes(b"new")
    with pytest.raises(ConfigError, match="deltas that were made for"):
        pull(home, str(source), nothing, update=True)
    assert get_kept(home, "one") == kept


def test_every_kind_of_damage_is_found(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "dir"
    source.mkdir()
    for name, data in {"config.json": b"{}", "model.safetensors": b"0123456789", "tokenizer.json": b"[]", "vocab.json": b"{}"}.items():
        (source / name).write_bytes(data)
    digest = pull(home, str(source), nothing).base.digest
    seen: list[tuple[str, int, int | None]] = []
    assert verify_base(home, digest, lambda *call: seen.append(call)) == []
    assert ("model.safetensors", 10, 10) in seen
    folder = home.base_folder(digest)
    for path in folder.iterdir():
        path.chmod(0o600)
    (folder / "model.safetensors").write_bytes(b"0123456780")
    (folder / "config.json").write_bytes(b"{")
    (folder / "vocab.json").unlink()
    (folder / "tokenizer.json").write_bytes(b"[] ")
    (folder / "stranger").write_bytes(b"")
    faults = {(fault.file, fault.what) for fault in verify_base(home, digest)}
    assert faults == {
        ("model.safetensors", "altered"), ("config.json", "truncated"), ("vocab.json", "missing"),
        ("tokenizer.json", "altered"), ("stranger", "added"),
    }  # fmt: skip


def test_a_damaged_manifest_is_said(home: Home, tmp_path: Path) -> None:
    digest = pull_bytes(home, tmp_path, b"1", "one").base
    manifest = home.base_folder(digest) / MANIFEST
    manifest.chmod(0o600)
    good = json.loads(manifest.read_bytes())
    for bad in (b"", b"[]", b"{}", b"\xff", json.dumps({**good, "files": []}).encode(), json.dumps({**good, "digest": "0" * 64}).encode()):
        manifest.write_bytes(bad)
        with pytest.raises(HomeError, match="Pull the model again"):
            read_base(home, digest)
    manifest.unlink()
    with pytest.raises(HomeError, match="Pull the model again"):
        read_base(home, digest)
    remove(home, "one")
    assert pull_bytes(home, tmp_path, b"1", "one").base == digest


def test_a_damaged_name_can_be_removed_and_hides_no_base(home: Home, tmp_path: Path) -> None:
    one, two = pull_bytes(home, tmp_path, b"1", "one"), pull_bytes(home, tmp_path, b"2", "two")
    (home.models / "one.json").write_bytes(b"{")
    for call in (lambda: get_kept(home, "one"), lambda: list_kept(home), lambda: remove(home, "two")):
        with pytest.raises(HomeError, match="ingle rm one"):
            call()
    assert home.base_folder(one.base).exists() and home.base_folder(two.base).exists()
    assert remove(home, "one").bases == (one.base,)
    assert [kept.name for kept in list_kept(home)] == ["two"]


def test_the_digest_is_of_the_contents_whatever_their_order() -> None:
    a, b = KeptFile("a", 1, "1" * 64), KeptFile("b", 2, "2" * 64)
    assert base_digest((a, b)) == base_digest((b, a))
    assert base_digest((a,)) != base_digest((KeptFile("b", 1, "1" * 64),))


def test_a_kept_file_cannot_be_written(home: Home, tmp_path: Path) -> None:
    kept = pull_bytes(home, tmp_path, b"1", "one")
    if os.name != "nt":
        assert {path.stat().st_mode & 0o222 for path in home.base_folder(kept.base).iterdir()} == {0}


def test_staging_is_empty_again_after_an_error(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt), staging(home) as folder:
        (folder / "half").write_bytes(b"x")
        raise KeyboardInterrupt
    assert list(home.staging.iterdir()) == []


def test_two_may_discard_one_folder_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home.deltas / "d"
    folder.mkdir(parents=True)
    (folder / "tensors").write_bytes(b"12345")
    rename, others = Path.replace, list[Path]()

    def other_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        discard(home, path)
        others.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", other_first)
    discard(home, folder)
    assert others == [folder] and not folder.exists()
    assert list(home.staging.iterdir()) == []


def test_only_the_staging_of_the_dead_is_swept(home: Home) -> None:
    dead = home.staging / "1-dead"
    dead.mkdir()
    (dead / "half").write_bytes(b"x")
    with staging(home) as mine:
        assert mine.is_dir() and not dead.exists(), "whoever builds something sweeps first"
        dead.mkdir()
        assert sweep_staging(home) == ["1-dead"]
        assert mine.is_dir() and not dead.exists()


def test_a_crash_between_base_and_name_is_made_good(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingle.home.kept._keep", crash)
        with pytest.raises(KeyboardInterrupt):
            pull_bytes(home, tmp_path, b"1", "one")
    assert list_kept(home) == [] and len(list_bases(home)) == 1
    result = pull(home, str(tmp_path / "source" / "one.gguf"), nothing)
    assert result.already
    assert [kept.name for kept in list_kept(home)] == ["one"]


def test_a_damaged_base_is_replaced_by_a_sound_one(home: Home, tmp_path: Path) -> None:
    kept = pull_bytes(home, tmp_path, b"12345", "one")
    weights = home.base_folder(kept.base) / "one.gguf"
    weights.chmod(0o600)
    weights.write_bytes(b"1234x")
    base = read_base(home, kept.base)
    with staging(home) as folder:
        (folder / "one.gguf").write_bytes(b"12345")
        (folder / MANIFEST).write_bytes((home.base_folder(kept.base) / MANIFEST).read_bytes())
        adopt(home, folder, base, "one")
    assert weights.read_bytes() == b"12345"
    assert verify_base(home, kept.base) == []
