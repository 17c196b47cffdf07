"""All that forms an answer is digested: a changed pack is refused, and one changed with care is found by `verify_packs`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingle.core.config import to_table
from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError
from ingle.engine.lean_base import verify_packs
from ingle.engine.loading import open_model
from ingle.engine.packs import PackInfo, Source, kept_source, read_pack
from ingle.home.kept import get_kept
from ingle.home.kept_file import KeptFile
from ingle.home.lean import WEIGHTS
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.model.export_formats import write_hf
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import random_checkpoint, tiny_config


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("verifying")
    config = tiny_config(vocab=260, hidden=64, mlp=96, dim=16)
    checkpoint = random_checkpoint(config)
    write_hf(folder / "tiny", config, lambda name: checkpoint.tensor(name).to_float32(), "float32", byte_tokenizer())
    home = Home(folder / "home")
    pull(home, str(folder / "tiny"), lambda _: None)
    open_model(kept_source(home, get_kept(home, "tiny")), "int8", 1)
    return home


@pytest.fixture
def home(packed: Home, tmp_path: Path) -> Home:
    shutil.copytree(packed.root, tmp_path / "home")
    return Home(tmp_path / "home")


def source_of(home: Home) -> Source:
    return kept_source(home, get_kept(home, "tiny"))


def swap_ids(pack: Path) -> None:
    table = json.loads((pack / TOKENIZER_FILE).read_bytes())
    words = table["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (pack / TOKENIZER_FILE).write_text(json.dumps(table))


def change_template(pack: Path) -> None:
    table = json.loads((pack / FACTS_FILE).read_bytes())
    (pack / FACTS_FILE).write_text(json.dumps(table | {"chat_template": "{{ messages[0].content }}!"}))


def change_weights(pack: Path) -> None:
    data = bytearray((pack / WEIGHTS).read_bytes())
    data[100] ^= 4
    (pack / WEIGHTS).write_bytes(data)


def halve_weights(pack: Path) -> None:
    (pack / WEIGHTS).write_bytes((pack / WEIGHTS).read_bytes()[: (pack / WEIGHTS).stat().st_size // 2])


CHANGES = [swap_ids, change_template, change_weights]


def test_an_untouched_pack_is_whole(home: Home) -> None:
    assert list(verify_packs(home)) == []


@pytest.mark.parametrize("change", [*CHANGES, halve_weights])
def test_a_changed_pack_is_refused_and_found(home: Home, change: Callable[[Path], None]) -> None:
    change(source_of(home).packs / "int8")
    with pytest.raises(CheckpointError, match="Delete the folder"):
        open_model(source_of(home), "int8", 1)
    assert [name for name, _ in verify_packs(home)] == ["tiny"]


def test_a_pack_without_its_template_is_refused_and_found(home: Home) -> None:
    (source_of(home).packs / "int8" / FACTS_FILE).unlink()
    with pytest.raises(CheckpointError, match="no file"):
        open_model(source_of(home), "int8", 1)
    assert [name for name, _ in verify_packs(home)] == ["tiny"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_pack_that_was_changed_with_its_digests_is_another_model_and_is_found(home: Home, change: Callable[[Path], None]) -> None:
    pack, before = source_of(home).packs / "int8", open_model(source_of(home), "int8", 1).digest
    change(pack)
    info = read_pack(pack)
    assert info is not None
    files = tuple(KeptFile(file.name, (pack / file.name).stat().st_size, digest_file(pack / file.name)) for file in info.files)
    sealed = PackInfo(info.version, info.format, info.base_digest, info.config, info.places, files)
    (pack / "pack.json").write_text(json.dumps(to_table(sealed) | {"digest": sealed.digest}))
    assert open_model(source_of(home), "int8", 1).digest != before
    [(name, fault)] = verify_packs(home)
    assert name == "tiny"
    assert "than the model's own files" in fault


def test_a_damaged_description_is_found_and_made_anew(home: Home) -> None:
    before = open_model(source_of(home), "int8", 1).digest
    path = source_of(home).packs / "int8" / "pack.json"
    path.write_text(path.read_text().replace('"norm_eps": ', '"norm_eps": 1'))
    assert [name for name, _ in verify_packs(home)] == ["tiny"]
    assert open_model(source_of(home), "int8", 1).digest == before
    assert list(verify_packs(home)) == []


def test_a_pack_of_another_version_is_no_fault(home: Home) -> None:
    path = source_of(home).packs / "int8" / "pack.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"version": 3}))
    assert list(verify_packs(home)) == []
    open_model(source_of(home), "int8", 1)
    assert list(verify_packs(home)) == []
