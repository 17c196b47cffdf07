"""Pulling from this machine: what is taken, what is refused, and that a failure leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.core.errors import CheckpointError, ConfigError, HomeError, PullError
from ingle.home.base import list_bases, verify_base
from ingle.home.kept import list_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.source import HubSource, default_name, find_source


def nothing(folder: Path) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded model with much beside it that no model needs."""
    folder = tmp_path / "My Model"
    folder.mkdir()
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 1000 for n in (1, 2)}
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    other = {"README.md": b"x", "pytorch_model.bin": b"x", "consolidated.safetensors": b"x", "tokenizer.json": b"{}", "config.json": b"{}"}
    for name, data in {**shards, **other, "model.safetensors.index.json": json.dumps(index).encode()}.items():
        (folder / name).write_bytes(data)
    return folder


def empty(home: Home) -> bool:
    return not (list_kept(home) or list(home.bases.iterdir()) or list(home.staging.iterdir()))


def test_a_folder_is_copied_without_what_is_not_needed(home: Home, folder: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    checked: list[set[str]] = []
    result = pull(
        home, str(folder), lambda staged: checked.append({p.name for p in staged.iterdir()}), progress=lambda *call: seen.append(call)
    )
    files = {
        "config.json", "tokenizer.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    assert checked == [files]
    assert {file.name for file in result.base.files} == files
    assert not result.already
    assert result.kept.name == "My-Model"
    assert result.base.source == f"file:{folder}"
    assert verify_base(home, result.base.digest) == []
    assert ("model-00001-of-00002.safetensors", 1000, 1000) in seen
    assert list(home.staging.iterdir()) == []


def test_pulling_it_again_copies_nothing(home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pull(home, str(folder), nothing)

    def refuse(*_args: object) -> None:
        pytest.fail("something was copied")

    monkeypatch.setattr("ingle.home.pull.bring_from_local", refuse)
    again = pull(home, str(folder), refuse)
    assert again.already and again.kept == first.kept
    named = pull(home, str(folder), refuse, name="second")
    assert named.already and named.kept.base == first.kept.base
    assert [kept.name for kept in list_kept(home)] == ["My-Model", "second"]


def test_a_later_edit_of_the_source_does_not_reach_the_home(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "m.gguf"
    source.write_bytes(b"one")
    first = pull(home, str(source), nothing)
    with source.open("r+b") as file:
        file.write(b"two")
    assert verify_base(home, first.base.digest) == []
    with pytest.raises(ConfigError, match="The name m is taken"):
        pull(home, str(source), nothing)
    assert pull(home, str(source), nothing, name="other").kept.base != first.kept.base
    assert pull(home, str(source), nothing, update=True).already  # the same bytes came in as `other`
    assert [base.digest for base in list_bases(home)] == [list_kept(home)[0].base]


def test_a_missing_shard_is_named(home: Home, folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PullError, match=r"no model-00002-of-00002\.safetensors"):
        pull(home, str(folder), nothing)
    for index in (b"{", b"[]", b'{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_bytes(index)
        with pytest.raises(PullError, match="must list the shards"):
            pull(home, str(folder), nothing)
    assert empty(home)


def test_an_index_cannot_point_out_of_the_folder(home: Home, folder: Path) -> None:
    (folder.parent / "secret.safetensors").write_bytes(b"x")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(PullError, match=r"no \.\./secret"):
        pull(home, str(folder), nothing)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.gguf", "b.gguf"], r"several GGUF files.*a\.gguf, b\.gguf.*ingle pull .*/a\.gguf"),
        (["pytorch_model.bin", "config.json"], r"pytorch_model\.bin.*run code"),
        (["adapter_model.safetensors"], "must hold a config.json"),
        ([], "must hold safetensors or GGUF"),
    ],
)
def test_folders_that_hold_no_model(home: Home, tmp_path: Path, files: list[str], message: str) -> None:
    source = tmp_path / "x"
    source.mkdir()
    for name in files:
        (source / name).write_bytes(b"x")
    with pytest.raises(PullError, match=message):
        pull(home, str(source), nothing)
    assert empty(home)


def test_a_folder_with_one_gguf_is_that_gguf(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "w.gguf").write_bytes(b"x")
    (tmp_path / "x" / "README.md").write_bytes(b"x")
    assert [file.name for file in pull(home, str(tmp_path / "x"), nothing).base.files] == ["w.gguf"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("smolm2", r"Did you mean smollm2.*`ingle pull` lists"),
        ("zzz", "Known names: smollm2, smollm2-hybrid"),
        ("", "is not a known model"),
        ("./nowhere", "There is no file or folder"),
        ("missing.gguf", "There is no file or folder"),
        ("a/b/c", "is not a known model"),
    ],
)
def test_what_cannot_be_pulled(home: Home, what: str, message: str) -> None:
    with pytest.raises(PullError, match=message):
        pull(home, what, nothing)


def test_a_file_that_is_no_gguf(home: Home, folder: Path) -> None:
    with pytest.raises(PullError, match="name the folder"):
        pull(home, str(folder / "consolidated.safetensors"), nothing)


def test_what_the_hub_is_asked_for() -> None:
    assert find_source("org/name") == HubSource("org/name")
    assert find_source("org/name@v1.0") == HubSource("org/name", revision="v1.0")
    assert find_source("org/na.me/sub/f-Q4_0.gguf") == HubSource("org/na.me", "sub/f-Q4_0.gguf")
    assert default_name(find_source("org/name/f-Q4_0.gguf")) == "f-Q4_0"
    assert default_name(find_source("org/name@main")) == "name"


@pytest.mark.parametrize("error", [CheckpointError("x", "is damaged"), KeyboardInterrupt()])
def test_a_failed_check_or_ctrl_c_leaves_nothing(home: Home, folder: Path, error: BaseException) -> None:
    def check(staged: Path) -> None:
        assert (staged / "config.json").exists()
        raise error

    with pytest.raises(type(error)):
        pull(home, str(folder), check)
    assert empty(home)
    pull(home, str(folder), nothing)


def test_a_name_that_cannot_be_used_is_refused_before_anything_is_copied(home: Home, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"\+"):
        pull(home, str(folder), lambda _: pytest.fail("too late"), name="a+b")
    pull(home, str(folder), nothing, name="taken")
    (folder / "config.json").write_bytes(b'{"a": 1}')
    for name in ("taken", "TAKEN"):
        with pytest.raises(ConfigError, match="taken"):
            pull(home, str(folder), lambda _: pytest.fail("too late"), name=name)


def test_no_room_is_said_before_anything_is_copied(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "big.gguf"
    source.write_bytes(bytes(1000))
    home = Home(small_disk / "home")
    with pytest.raises(PullError, match=r"MB free, .* MB needed.*Free some disk space"):
        pull(home, str(source), nothing)
    assert empty(home)


def test_a_disk_that_fills_up_meanwhile(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.fetch.need_space", lambda *_: None)
    monkeypatch.setattr("ingle.home.local_files.need_space", lambda *_: None)
    source = tmp_path / "big.gguf"
    source.write_bytes(bytes(3 << 20))
    home = Home(small_disk / "home")
    with pytest.raises(HomeError, match=r"No space left.*Free some disk space"):
        pull(home, str(source), nothing)
    assert empty(home)
    source.write_bytes(bytes(1 << 20))
    assert not pull(home, str(source), nothing).already


def test_a_home_that_cannot_be_written(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="INGLE_HOME"):
        pull(Home(tmp_path / "file" / "home"), str(folder), nothing)


def test_a_killed_pull_leaves_no_base_and_is_swept(home: Home, folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ingle.home.place import Home; from ingle.home.pull import pull\n"
        "def check(folder):\n    print('checking', flush=True); time.sleep(60)\n"
        "pull(Home(Path(sys.argv[1])), sys.argv[2], check)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(home.root), str(folder)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"checking\n"
    child.kill()
    child.wait()
    assert list_kept(home) == [] and list_bases(home) == []
    assert len(list(home.staging.iterdir())) == 1
    pull(home, str(folder), nothing)
    assert list(home.staging.iterdir()) == []
    assert verify_base(home, list_kept(home)[0].base) == []
