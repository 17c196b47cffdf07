"""Known models as offers to a machine: what fits, what is lacking, what is kept, and which larger one is offered unasked."""

from dataclasses import replace
from pathlib import Path

import pytest

from ingle.core.errors import PullError
from ingle.core.process import memory_bytes
from ingle.engine import bandwidth as room
from ingle.engine.bandwidth import FLUENT, KINDS, Bandwidth, MachineRoom, check_room, larger_offer, offers, room_of
from ingle.home.base import describe_base, write_base
from ingle.home.catalogue import GUARD_MODELS, HUB_MODELS
from ingle.home.kept import adopt
from ingle.home.kept_file import KeptFile
from ingle.home.place import Home
from ingle.home.staging import staging

LARGE = MachineRoom(64 << 30, 64 << 30, 1 << 40)
FAST = Bandwidth(2, "a CPU", 2, 2, "2026-01-01T00:00:00+00:00", dict.fromkeys(KINDS, 20e9), 1e-5)


def keep_as(home: Home, what: str, name: str) -> None:
    """A base of the right source under a name; its weights are never read here."""
    model = (HUB_MODELS | GUARD_MODELS)[what]
    with staging(home) as folder:
        (folder / "a.gguf").write_bytes(b"x")
        base = describe_base((KeptFile("a.gguf", 1, "0" * 64),), f"hub:{model.repo}/{model.file}".rstrip("/"), "a" * 40, "mit")
        write_base(folder, base)
        adopt(home, folder, base, name)


def test_a_large_machine_has_room_for_all(tmp_path: Path) -> None:
    known = offers(Home(tmp_path / "none"), None, LARGE)
    assert [one.name for one in known] == ["smollm2", *HUB_MODELS, *GUARD_MODELS]
    assert all(one.fits and not one.why and not one.kept and one.tokens_per_s is None for one in known)
    fast = offers(Home(tmp_path / "none"), FAST, LARGE)
    assert all(one.tokens_per_s and one.tokens_per_s > 1 for one in fast[1:])
    assert fast[0].tokens_per_s is None, "so small a model is not bound by reading"
    assert not (tmp_path / "none").exists(), "listing makes nothing"


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    def why(name: str, **change: int) -> str:
        [one] = [one for one in offers(Home(tmp_path), None, replace(LARGE, **change)) if one.name == name]
        assert one.fits == (not one.why)
        return one.why

    assert why("qwen3-8b", memory=4 << 30) == "It needs about 5.8 GB of memory; this machine has 4.3 GB"
    assert why("qwen3-8b", free_memory=4 << 30) == "It needs about 5.8 GB of memory; 4.3 GB is free now"
    assert why("qwen3-8b", free_disk=8 << 30) == "It needs about 9.7 GB of disk; 8.6 GB is free"
    assert why("smollm2", memory=4 << 30, free_disk=8 << 30) == ""


def test_a_kept_one_needs_no_disk_and_says_its_name(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    keep_as(home, "smollm3-3b", "mine")
    [one] = [one for one in offers(home, FAST, replace(LARGE, free_disk=0)) if one.name == "smollm3-3b"]
    assert one.kept == "mine" and one.fits
    (next(home.bases.iterdir()) / "base.json").write_text("{")
    assert not any(one.kept for one in offers(home, FAST, LARGE)), "a damaged one is as good as none"


def test_the_largest_fluent_one_that_fits_is_offered(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    largest = larger_offer(offers(home, FAST, LARGE), "smollm2")
    assert largest is not None and largest.name == "smollm3-3b" and largest.tokens_per_s and largest.tokens_per_s >= FLUENT
    tight = larger_offer(offers(home, FAST, replace(LARGE, free_memory=1 << 30)), "smollm2")
    assert tight is not None and tight.name == "smollm2-360m"
    assert larger_offer(offers(home, None, LARGE), "smollm2") is None, "nothing is offered whose speed nobody knows"
    assert larger_offer(offers(home, replace(FAST, bytes_per_s=dict.fromkeys(KINDS, 1e9)), LARGE), "smollm2") is None
    keep_as(home, "guard", "guard")
    still = larger_offer(offers(home, FAST, LARGE), "smollm2")
    assert still is not None and still.name == "smollm3-3b", "a guard is none to talk with"
    keep_as(home, "qwen3-0.6b", "qwen3-0.6b")
    assert larger_offer(offers(home, FAST, LARGE), "smollm2") is None, "whoever has a larger one is left alone"


def test_no_room_is_said_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, said = Home(tmp_path).create(), list[str]()

    def machine(**change: int) -> None:
        monkeypatch.setattr(room, "room_of", lambda _: replace(LARGE, **change))

    machine(free_disk=1 << 30)
    with pytest.raises(PullError, match=r"9\.7 GB of disk; 1\.1 GB is free.*Nothing was downloaded"):
        check_room(home, "qwen3-8b", force=True)
    machine(memory=1 << 30)
    with pytest.raises(PullError, match=r"this machine has 1\.1 GB.*--force"):
        check_room(home, "qwen3-8b")
    check_room(home, "qwen3-8b", force=True, warn=said.append)
    machine(free_memory=1 << 30)
    check_room(home, "qwen3-8b", warn=said.append)
    assert said == ["It needs about 5.8 GB of memory; this machine has 1.1 GB", "It needs about 5.8 GB of memory; 1.1 GB is free now"]
    for other in ("smollm2", "someone/tiny", "no such model", "./x.gguf"):
        check_room(home, other)
    keep_as(home, "qwen3-8b", "qwen3-8b")
    machine(memory=1 << 30, free_disk=0)
    check_room(home, "qwen3-8b")


def test_the_room_of_this_machine(tmp_path: Path) -> None:
    found = room_of(Home(tmp_path / "not" / "made" / "yet"))
    assert 0 < found.free_memory <= found.memory == memory_bytes() and found.free_disk > 0
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8 kB\nMemAvailable:       1024 kB\n")
    assert room_of(Home(tmp_path), meminfo).free_memory == 1 << 20
    for text in ("", "MemAvailable:\n", "MemAvailable: many kB\n"):
        meminfo.write_text(text)
        assert room_of(Home(tmp_path), meminfo).free_memory == memory_bytes()
