"""Deltas are whole or not there, belong to one base, have one name each on it, and go only when nothing needs them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ingle.core.delta import Delta
from ingle.core.errors import ConfigError, DeltaError, HomeError, NotKept
from ingle.core.files import sync_folder
from ingle.home.deltas import (
    MANIFEST,
    REPORT,
    TENSORS,
    delta_report,
    delta_tensors,
    find_delta,
    get_delta,
    list_deltas,
    put_delta,
    stack_digest,
    verify_delta,
)  # fmt: skip
from ingle.home.kept import Freed, Kept, get_kept, keep, list_models, remove, sweep_packs
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.staging import staging

NAME = "model.layers.0.self_attn.q_proj"


def nothing(folder: Path) -> None: ...


@pytest.fixture
def one(home: Home, tmp_path: Path) -> Kept:
    path = tmp_path / "one.gguf"
    path.write_bytes(b"weights" * 10)
    return pull(home, str(path), nothing).kept


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((4, 8)).astype(np.float32), draw.standard_normal((6, 4)).astype(np.float16)
    return {f"{NAME}.lora_A.weight": a, f"{NAME}.lora_B.weight": b}


def put(home: Home, name: str, base: str, seed: int = 0, origin: dict[str, str] | None = None) -> Delta:
    return put_delta(home, name, "lora", base, tensors(seed), origin or {"seed": str(seed)}, {"loss": [2.0, 1.0]})


def test_what_was_kept_comes_back(home: Home, one: Kept) -> None:
    delta = put(home, "x", one.base, origin={"method": "lora", "created_at": "2026-01-02T00:00:00+00:00"})
    assert get_delta(home, delta.digest) == delta == find_delta(home, "one", (one.base,), "x")
    back = delta_tensors(home, delta)
    assert back.keys() == tensors().keys()
    for name, value in tensors().items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].dtype == value.dtype
    assert delta_report(home, delta.digest) == {"loss": [2.0, 1.0]}
    kept = get_kept(home, "one+x")
    assert kept == Kept("one+x", one.base, (delta.digest,), "2026-01-02T00:00:00+00:00")
    assert kept.digest == stack_digest(one.base, [delta.digest]) != one.digest == one.base
    assert put(home, "x", one.base, origin=dict(delta.origin)) == delta, "the same once more changes nothing"
    assert list(home.staging.iterdir()) == []


def test_a_tree_grows_on_a_base(home: Home, one: Kept) -> None:
    x, y = put(home, "x", one.base), put(home, "y", one.base, 1)
    above = put(home, "x", get_kept(home, "one+x").digest, 2)
    keep(home, "two", one.base, [y.digest])
    assert [kept.name for kept in list_models(home)] == ["one", "one+x", "one+x+x", "one+y", "two"]
    assert get_kept(home, "one+x+x").deltas == (x.digest, above.digest)
    assert get_kept(home, "two").deltas == get_kept(home, "one+y").deltas == (y.digest,)
    assert [delta.digest for delta in list_deltas(home, one.base)] == [x.digest, y.digest]


def test_a_delta_of_another_base_is_refused(home: Home, one: Kept, tmp_path: Path) -> None:
    (tmp_path / "two.gguf").write_bytes(b"other")
    two = pull(home, str(tmp_path / "two.gguf"), nothing).kept
    x = put(home, "x", one.base)
    with pytest.raises(DeltaError, match=f"delta x was made for base {one.base[:12]}, not for {two.base[:12]}"):
        get_kept(home, "two+x")
    put(home, "y", one.base, 1)
    with pytest.raises(DeltaError, match="was made for base"):
        get_kept(home, "one+x+y")  # y was made for one alone, not for one with x
    with pytest.raises(DeltaError, match="was made for base"):
        keep(home, "three", two.base, [x.digest])
    with pytest.raises(NotKept, match="delta 000000000000"):
        keep(home, "three", two.base, ["0" * 64])


def test_an_unknown_delta_says_what_there_is(home: Home, one: Kept) -> None:
    with pytest.raises(NotKept, match="one has no deltas; `ingle make tune one DATA --name x`"):
        get_kept(home, "one+x")
    put(home, "x", one.base)
    with pytest.raises(NotKept, match=r"Kept here: one\+x"):
        get_kept(home, "one+z")
    with pytest.raises(NotKept, match="model two"):
        get_kept(home, "two+x")
    for name in ("one+", "one++x", "one+x+"):
        with pytest.raises(NotKept):
            get_kept(home, name)


def test_a_name_is_taken_once_on_a_base(home: Home, one: Kept) -> None:
    put(home, "x", one.base)
    for name in ("x", "X"):
        with pytest.raises(ConfigError, match=r"Another delta of this model is called x.*ingle rm MODEL\+x"):
            put(home, name, one.base, 1)
    for name in ("a+b", "", "../x"):
        with pytest.raises(ConfigError, match="name"):
            put(home, name, one.base)
    assert len(list_deltas(home)) == 1
    assert list(home.staging.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({}, "at least one tensor"),
        ({"a": np.ones(3)}, "float32, float16 or uint8"),
        ({"a": np.ones(3, np.int32)}, "float32, float16 or uint8"),
        ({"a": np.array([1, np.nan], np.float32)}, "finite"),
    ],
)
def test_tensors_that_are_not_kept(home: Home, bad: dict[str, np.ndarray], what: str) -> None:
    with pytest.raises(DeltaError, match=what):
        put_delta(home, "x", "lora", "0" * 64, bad, {})
    assert list(home.deltas.iterdir()) == []


def test_damage_is_found_by_tensor(home: Home, one: Kept) -> None:
    delta = put(home, "x", one.base)
    assert verify_delta(home, delta.digest) == []
    folder = home.delta_folder(delta.digest)
    good = tensors()
    changed = {**good, f"{NAME}.lora_B.weight": good[f"{NAME}.lora_B.weight"] + np.float16(1)}
    for bad in (changed, {**good, "more": np.ones(1, np.float32)}, dict([next(iter(good.items()))])):
        save_file(bad, folder / TENSORS)
        [fault] = verify_delta(home, delta.digest)
        assert "is not as it was kept" in fault
        with pytest.raises(HomeError, match="is not as it was kept"):
            delta_tensors(home, delta)
    (folder / TENSORS).write_bytes(b"no tensors")
    assert "whole safetensors file" in verify_delta(home, delta.digest)[0]
    (folder / TENSORS).unlink()
    with pytest.raises(HomeError):
        delta_tensors(home, delta)
    (folder / REPORT).write_bytes(b"{")
    assert delta_report(home, delta.digest) is None


def test_a_manifest_that_was_edited_is_refused(home: Home, one: Kept) -> None:
    delta = put(home, "x", one.base)
    path = home.delta_folder(delta.digest) / MANIFEST
    table = json.loads(path.read_bytes())
    for bad in (b"", b"[]", json.dumps({**table, "base_digest": "0" * 64}).encode(), json.dumps({**table, "kind": "full"}).encode()):
        path.write_bytes(bad)
        with pytest.raises(HomeError, match="delta"):
            get_delta(home, delta.digest)
        assert list_deltas(home) == []
        assert verify_delta(home, delta.digest)


def test_nothing_half_is_left_when_it_breaks_off(home: Home, one: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, mode: int = 0) -> None:
        raise KeyboardInterrupt

    for step in ("_write_tensors", "write_atomic", "refuse_taken_delta"):
        with monkeypatch.context() as patch:
            patch.setattr(f"ingle.home.deltas.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                put(home, "x", one.base)
        assert list_deltas(home) == []
        assert list(home.deltas.iterdir()) == list(home.staging.iterdir()) == []


def test_a_full_disk_is_said(one: Kept, small_disk: Path) -> None:
    home = Home(small_disk / "home").create()
    with pytest.raises(HomeError, match=r"[Ff]ree some"):
        put_delta(home, "big", "full", one.base, {"a": np.ones(1 << 20, np.float32)}, {})
    assert list(home.deltas.iterdir()) == []
    put(home, "small", one.base)


def test_what_goes_is_told_before_it_does(home: Home, one: Kept) -> None:
    x = put(home, "x", one.base)
    keep(home, "two", one.base, [x.digest])
    remove(home, "one")
    keep(home, "one", one.base)
    told: list[Freed] = []

    def full(freed: Freed) -> None:
        told.append(freed)
        raise HomeError("ledger", "is full")

    for name, bases, deltas in (("two", (), ()), ("one+x", (), (x.digest,)), ("one", (one.base,), ())):
        with pytest.raises(HomeError, match="is full"):
            remove(home, name, full)
        assert get_kept(home, name).base == one.base and home.base_folder(one.base).is_dir()
        assert remove(home, name) == told[-1] and (told[-1].bases, told[-1].deltas) == (bases, deltas)
        assert bool(told[-1].nbytes) == bool(bases or deltas)


def test_what_is_needed_is_not_let_go(home: Home, one: Kept) -> None:
    x = put(home, "x", one.base)
    y = put(home, "y", get_kept(home, "one+x").digest)
    two = keep(home, "two", one.base, [x.digest, y.digest])
    with pytest.raises(DeltaError, match=r"one\+x is what other deltas were made for \(y\).*ingle rm one\+x\+y"):
        remove(home, "one+x")
    with pytest.raises(DeltaError, match=r"part of other kept models.*ingle rm two"):
        remove(home, "one+x+y")
    assert remove(home, "one").bases == (), "two uses the base"
    keep(home, "one", one.base)
    remove(home, "two")
    with pytest.raises(DeltaError, match=r"model one is what other deltas were made for \(x, y\).*ingle rm one\+x\+y"):
        remove(home, "one")
    assert get_kept(home, "one+x+y").deltas == two.deltas
    packed = home.pack_folder(two.digest)
    packed.mkdir(parents=True)
    (packed / "weights.bin").write_bytes(b"x" * 500)
    freed = remove(home, "one+x+y")
    assert freed.deltas == (y.digest,)
    assert freed.nbytes > 500
    assert not packed.exists()
    keep(home, "two", one.base, [x.digest])
    z = put(home, "z", one.base)
    remove(home, "one")
    with pytest.raises(DeltaError, match=r"model two is what other deltas were made for \(z\).*pull the model"):
        remove(home, "two")
    keep(home, "one", one.base)
    remove(home, "two")
    for name, delta in (("one+x", x), ("one+z", z)):
        assert remove(home, name).deltas == (delta.digest,)
    assert list(home.deltas.iterdir()) == []
    assert remove(home, "one").bases == (one.base,)


def test_a_delta_is_on_the_disk_before_it_counts(home: Home, one: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, fsync = list[int](), os.fsync

    def noted(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    folder = home.delta_folder(put(home, "x", one.base).digest)
    tensors, manifest = (flushed.index((folder / name).stat().st_ino) for name in (TENSORS, MANIFEST))
    assert tensors < manifest


def test_the_last_name_takes_the_deltas_that_it_stands_for_along(home: Home, one: Kept) -> None:
    x = put(home, "x", one.base)
    two = keep(home, "two", one.base, [x.digest])
    home.pack_folder(two.digest).mkdir(parents=True)
    remove(home, "one")
    y = put(home, "y", two.digest, 1)
    with pytest.raises(DeltaError, match=r"made for \(y\).*ingle rm two\+y"):
        remove(home, "two")
    remove(home, "two+y")
    assert [delta.digest for delta in list_deltas(home)] == [x.digest] and y.digest != x.digest
    freed = remove(home, "two")
    assert freed.bases == (one.base,) and freed.nbytes > 0
    assert list(home.deltas.iterdir()) == list(home.packs.iterdir()) == list(home.bases.iterdir()) == []


def test_old_packs_of_nothing_that_is_kept_are_swept(home: Home, one: Kept) -> None:
    x = put(home, "x", one.base)
    owned = [home.pack_folder(digest) for digest in (one.base, stack_digest(one.base, [x.digest]))]
    old, new = home.pack_folder("0" * 64), home.pack_folder("1" * 64)
    for folder in (*owned, old, new):
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"x")
        for path in (folder / "weights.bin", folder) if folder != new else ():
            os.utime(path, (1e9, 1e9))
    assert sweep_packs(home) == [old.name]
    assert sorted(home.packs.iterdir()) == sorted([*owned, new])
    assert sweep_packs(home) == []


def test_a_lock_file_that_can_not_be_deleted_undoes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept stays told as kept: a bare OSError came after it."""
    real = Path.unlink

    def fail(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".lock":
            raise OSError(5, "Input/output error")
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with staging(home) as folder:
        (folder / "file").write_text("x")
    assert not any(home.staging.iterdir())


def test_a_folder_that_can_not_be_flushed_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a bare OSError, which a server takes for a bug."""
    real = os.fsync

    def fail(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), home.deltas.stat()):
            raise OSError(5, "Input/output error")
        real(handle)

    home.create()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HomeError, match="Input/output error"):
        sync_folder(home.deltas)


def test_abilities_stand_in_any_order_and_under_what_was_made_without_them(home: Home, one: Kept) -> None:
    sight, painter = (put_delta(home, name, name, one.base, {"w": np.ones(2, np.float32)}, {"seed": name}) for name in ("sight", "painter"))
    tuned = put(home, "tuned", one.base)
    after = put(home, "after", stack_digest(one.base, (sight.digest,)), 1)
    assert get_kept(home, "one+sight+painter").deltas == (sight.digest, painter.digest)
    assert get_kept(home, "one+painter+sight").deltas == (painter.digest, sight.digest)
    assert get_kept(home, "one+sight+tuned").deltas == (sight.digest, tuned.digest)
    assert get_kept(home, "one+sight+after").deltas == (sight.digest, after.digest)
    with pytest.raises(DeltaError, match="was made for base"):
        get_kept(home, "one+after")
    with pytest.raises(DeltaError, match="was made for base"):
        get_kept(home, "one+tuned+sight")
    assert keep(home, "both", one.base, (sight.digest, painter.digest)).deltas == (sight.digest, painter.digest)
