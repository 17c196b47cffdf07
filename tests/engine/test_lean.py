"""A lean base: the file is made again bit for bit, everything reads it as before, and nothing is lost when the way there is cut off."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError, ConfigError, HomeError
from ingle.engine import lean_base as lean_module
from ingle.engine.backend import Segment
from ingle.engine.lean_base import file_fault, make_lean, make_whole, verify_packs
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, list_packs, open_weights, read_pack
from ingle.home.base import is_whole, list_bases, verify_base
from ingle.home.kept import Kept, remove
from ingle.home.lean import LEAN, REST, WEIGHTS, Lean, read_lean
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.staging import bytes_in
from ingle.model.checkpoint import open_checkpoint
from tests.engine.test_formats import CONFIG, LOSSLESS, quantised_file
from tests.engine.tiny import tokens
from tests.model.tiny_models import random_weights, tiny_config, write_gguf
from tests.model.tiny_tokenizers import add_keys, byte_level, gguf_metadata

WORDS = gguf_metadata(byte_level(), "smollm")
VOCABULARY = len(WORDS["tokenizer.ggml.tokens"])


def with_words(writer: gguf.GGUFWriter) -> None:
    add_keys(writer, WORDS)


def kept_in(folder: Path, path: Path) -> tuple[Home, Kept]:
    """A home that keeps this file, packed."""
    home = Home(folder / "home")
    kept = pull(home, str(path), lambda _: None, "m").kept
    open_model(kept_source(home, kept), threads=1)
    return home, kept


@pytest.fixture
def house(tmp_path: Path) -> tuple[Home, Kept]:
    config = replace(CONFIG, vocab_size=VOCABULARY)
    return kept_in(tmp_path, quantised_file(tmp_path / "m.gguf", "Q4_K", config=config, extra=with_words))


def folder_of(home: Home, kept: Kept) -> Path:
    return home.base_folder(kept.base)


def manifest(home: Home, kept: Kept) -> Lean:
    found = read_lean(folder_of(home, kept))
    assert found is not None
    return found


def logits(home: Home, kept: Kept) -> np.ndarray:
    backend = open_model(kept_source(home, kept), threads=1).backend
    [got] = backend.forward([Segment(backend.new_state(), tokens(backend.config, 20), "all")])
    return got


def all_bytes(home: Home, kept: Kept) -> dict[str, bytes]:
    checkpoint = open_weights(home, kept)
    return {name: checkpoint.tensor(name).raw.tobytes() for name in checkpoint.names}


def there_and_back(home: Home, kept: Kept) -> Lean:
    """Make a base lean and whole again, and check all that must hold on the way. Returns the lean base's manifest."""
    [path] = folder_of(home, kept).glob("*.gguf")
    sum_, size, before, said, info = digest_file(path), path.stat().st_size, all_bytes(home, kept), logits(home, kept), read_pack(
        home.pack_folder(kept.base) / "auto"
    )  # fmt: skip
    moved = make_lean(home, kept)
    found = manifest(home, kept)
    assert not path.exists() and not (home.pack_folder(kept.base) / "auto").exists()
    assert moved.freed == size - (folder_of(home, kept) / REST).stat().st_size > 0
    assert (moved.event.kind, moved.event.facts["bytes"]) == ("lean", moved.freed)
    assert make_lean(home, kept).freed == 0, "it is done"
    assert all_bytes(home, kept) == before
    np.testing.assert_array_equal(logits(home, kept), said)
    assert list_packs(kept_source(home, kept)) == [info], "the same pack, not another one"
    assert not home.pack_folder(kept.base).exists() or not list(home.pack_folder(kept.base).rglob(WEIGHTS))
    assert is_whole(home, list_bases(home)[0]) and not verify_base(home, kept.base) and not list(verify_packs(home))
    assert make_whole(home, kept).freed == -moved.freed
    assert digest_file(path) == sum_ and not verify_base(home, kept.base) and read_lean(folder_of(home, kept)) is None
    np.testing.assert_array_equal(logits(home, kept), said)
    assert make_whole(home, kept).freed == 0
    return found


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_format_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    config = replace(CONFIG, vocab_size=VOCABULARY)
    home, kept = kept_in(tmp_path, quantised_file(tmp_path / "m.gguf", kind, config=config, extra=with_words))
    matrices = {one.name for one in there_and_back(home, kept).matrices}
    assert matrices == {name for name, weight in random_weights(config).items() if weight.ndim == 2}


@pytest.mark.parametrize(
    ("family", "changes", "left"),
    [
        ("llama", {}, 0),  # rows of q and k in another order
        ("phi3", {}, 0),  # several matrices in one tensor
        ("olmoe", {"intermediate_size": 64}, 2),  # experts in one tensor; which of them is chosen stays exact
        ("lfm2", {}, 0),
        ("qwen3_5_text", {}, 0),  # value heads in another order
    ],
)
def test_every_family_comes_back_bit_for_bit(tmp_path: Path, family: str, changes: dict[str, Any], left: int) -> None:
    config = tiny_config(family, vocab_size=VOCABULARY, **changes)
    path = write_gguf(tmp_path / "m.gguf", config, random_weights(config), "Q8_0", with_words)
    found = there_and_back(*kept_in(tmp_path, path))
    weights = {name for name, weight in random_weights(config).items() if weight.ndim == 2}
    assert len(weights - {one.name for one in found.matrices}) == left


def test_a_file_that_is_not_served_as_it_is_stays(tmp_path: Path) -> None:
    config = tiny_config("llama", vocab_size=VOCABULARY)
    path = write_gguf(tmp_path / "m.gguf", config, random_weights(config), "F16", with_words)
    home, kept = kept_in(tmp_path, path)
    with pytest.raises(ConfigError, match=r"would save little.*F16.*Q4_K_M"):
        make_lean(home, kept)
    assert not verify_base(home, kept.base) and list(folder_of(home, kept).glob("*.gguf"))


@pytest.mark.parametrize("act", ["unlink", "link", "replace", "fsync"])
@pytest.mark.parametrize("job", [make_lean, make_whole])
def test_cut_off_anywhere_nothing_is_lost(
    house: tuple[Home, Kept], monkeypatch: pytest.MonkeyPatch, act: str, job: Callable[[Home, Kept], object]
) -> None:
    home, kept = house
    before, said = all_bytes(home, kept), logits(home, kept)
    if job is make_whole:
        make_lean(home, kept)
    real, faults = getattr(os, act), 0
    for at in range(1, 40):
        count = 0

        def failing(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:  # noqa: B023 - called within this round
                raise OSError(28, "No space left on device")
            return real(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, act, failing)
            try:
                job(home, kept)
            except (HomeError, OSError):
                faults += 1
        assert all_bytes(home, kept) == before, at
        np.testing.assert_array_equal(logits(home, kept), said)
        if count < at:
            break
    assert faults or act == "link", "a disk without links has copies"
    job(home, kept)
    assert (read_lean(folder_of(home, kept)) is not None) == (job is make_lean)
    assert not verify_base(home, kept.base) and not list(verify_packs(home))


def test_where_the_disk_has_no_links_files_are_copied(house: tuple[Home, Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none)
    there_and_back(*house)


def test_a_file_that_would_come_back_otherwise_never_goes(house: tuple[Home, Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    home, kept = house
    real = lean_module._matrices
    monkeypatch.setattr(lean_module, "_matrices", lambda *given: (replace(one, planes=one.planes[::-1]) for one in real(*given)))
    with pytest.raises(CheckpointError):
        make_lean(home, kept)
    assert list(folder_of(home, kept).glob("*.gguf")) and logits(home, kept).any()


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("name", [WEIGHTS, REST])
def test_damage_is_found_and_never_served_as_something_else(house: tuple[Home, Kept], name: str) -> None:
    home, kept = house
    make_lean(home, kept)
    path = folder_of(home, kept) / name
    data = bytearray(path.read_bytes())
    data[0 if name == WEIGHTS else -200] ^= 1  # of a matrix, not of the norms, which the rest holds, too
    rewrite(path, data)
    assert [(fault.file, fault.what) for fault in verify_base(home, kept.base)] == [(name, "altered")]
    assert "must have SHA-256" in file_fault(folder_of(home, kept), manifest(home, kept))
    with pytest.raises(CheckpointError, match="must have SHA-256"):
        make_whole(home, kept)
    assert read_lean(folder_of(home, kept)) is not None, "what is left stays"
    if name == WEIGHTS:
        with pytest.raises(CheckpointError, match="pull it again, or restore a backup"):
            logits(home, kept)
    rewrite(path, bytes(data[: len(data) // 2]))
    assert [fault.what for fault in verify_base(home, kept.base)] == ["truncated"]
    with pytest.raises(CheckpointError):
        all_bytes(home, kept)


def test_a_pack_that_was_changed_with_its_manifest_is_found(house: tuple[Home, Kept]) -> None:
    home, kept = house
    make_lean(home, kept)
    folder, table = folder_of(home, kept), json.loads((folder_of(home, kept) / LEAN).read_bytes())
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[0] ^= 1
    rewrite(folder / WEIGHTS, data)
    for part in table["parts"]:
        part["sha256"] = digest_file(folder / part["name"])
    rewrite(folder / LEAN, json.dumps(table).encode())
    assert not verify_base(home, kept.base), "by its own word all is well"
    assert [model for model, _ in verify_packs(home)] == ["m"], "but it is not the file that came"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(version=2),
        lambda table: table["pieces"].pop(),
        lambda table: table["pieces"][0].update(size=1),
        lambda table: table["pieces"].append({"begin": 10**15, "size": 10**15}),
        lambda table: table["matrices"].append(table["matrices"][0]),
        lambda table: table["matrices"][0].update(rows=10**12),
        lambda table: table["matrices"][0].update(kind="IQ1_S"),
        lambda table: table["matrices"][0].update(kind="nonsense"),
        lambda table: table["matrices"][0].update(kind="Q5_K"),
        lambda table: table["matrices"][0].update(planes=[[0, 64], [10**15, 64]]),
        lambda table: table["matrices"][0].update(name="../../etc/passwd"),
        lambda table: table["file"].update(size=10**15),
        lambda table: table["file"].update(name=7),
        lambda table: table["file"].update(name="../../../x.gguf"),
        lambda table: table["file"].update(name="/x.gguf"),
        lambda table: table["file"].update(name="tokenizer.json"),
        lambda table: table["parts"][0].update(name="../base.json"),
        lambda table: table.update(parts=[]),
    ],
)
def test_a_manifest_that_lies_is_refused(house: tuple[Home, Kept], change: Callable[[dict[str, Any]], object]) -> None:
    home, kept = house
    make_lean(home, kept)
    path = folder_of(home, kept) / LEAN
    table = json.loads(path.read_bytes())
    change(table)
    rewrite(path, json.dumps(table).encode())
    with pytest.raises((CheckpointError, HomeError)):
        checkpoint = open_checkpoint(folder_of(home, kept))
        for name in checkpoint.names:
            checkpoint.tensor(name).to_float32()


def test_a_manifest_of_another_file_writes_nothing(house: tuple[Home, Kept]) -> None:
    home, kept = house
    make_lean(home, kept)
    path = folder_of(home, kept) / LEAN
    rewrite(path, path.read_bytes().replace(b'"m.gguf"', b'"n.gguf"'))
    with pytest.raises(HomeError, match="must be of the base that it lies in"):
        make_whole(home, kept)
    assert not list(folder_of(home, kept).glob("*.gguf")) and (folder_of(home, kept) / WEIGHTS).exists()


def test_a_lean_model_goes_with_all_that_it_has(house: tuple[Home, Kept]) -> None:
    home, kept = house
    make_lean(home, kept)
    size = bytes_in(folder_of(home, kept))
    assert remove(home, "m").nbytes == size and not folder_of(home, kept).exists()
