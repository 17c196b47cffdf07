"""Pulling from a hub (a small one, on this machine): pinned by commit, resumed after a kill, and every refusal in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from site_servers import REPO, Site

from ingle.core.errors import CheckpointError, HomeError, PullError
from ingle.home.base import list_bases, verify_base
from ingle.home.fetch import Remote, WrongBytes, fetch
from ingle.home.kept import list_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from tests.waiting import PATIENCE_S

PULL = """
import sys
from pathlib import Path
from ingle.home.place import Home
from ingle.home.pull import pull
import ingle.home.fetch
ingle.home.fetch.BLOCK_BYTES = 65536
def progress(label, done, total):
    print(label, done, total, flush=True)
result = pull(Home(Path(sys.argv[1])), sys.argv[2], lambda folder: None, progress=progress, waiting=print, endpoint=sys.argv[3])
print("already" if result.already else "brought")
"""


def nothing(folder: Path) -> None: ...


@pytest.fixture
def hub(site: Site) -> Site:
    site.files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": bytes(range(256)) * 4096,  # 1 MiB
        "pytorch_model.bin": b"never",
        "onnx/model.onnx": b"never",
    }
    return site


def test_the_needed_files_come_and_are_pinned(home: Home, hub: Site) -> None:
    result = pull(home, REPO, nothing, endpoint=hub.address)
    assert [file.name for file in result.base.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (result.base.source, result.base.revision, result.base.licence) == (f"hub:{REPO}", "a" * 40, "mit")
    assert result.kept.name == "tiny"
    assert verify_base(home, result.base.digest) == []
    assert list(home.downloads.iterdir()) == list(home.staging.iterdir()) == []
    assert not any(path.endswith((".bin", ".onnx")) for path, _ in hub.requests)


def test_the_pin_holds_until_an_update(home: Home, hub: Site) -> None:
    first = pull(home, REPO, nothing, endpoint=hub.address)
    hub.commit, hub.files["config.json"] = "b" * 40, b'{"model_type": "qwen3"}'
    hub.requests.clear()
    again = pull(home, REPO, nothing, endpoint=hub.address)
    assert again.already and again.base == first.base
    assert hub.requests == [], "what is kept needs no network"
    updated = pull(home, REPO, nothing, endpoint=hub.address, update=True)
    assert not updated.already and updated.base.revision == "b" * 40
    assert [base.digest for base in list_bases(home)] == [updated.base.digest], "nobody uses the old one any more"
    assert pull(home, REPO, nothing, endpoint=hub.address, update=True).already
    with_revision = pull(home, f"{REPO}@{'b' * 40}", nothing, endpoint=hub.address, name="exact")
    assert with_revision.already


def test_a_token_is_shown_to_the_hub_and_not_to_its_storage(home: Home, hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    pull(home, REPO, nothing, endpoint=hub.address)
    for path, headers in hub.requests:
        if "/resolve/" in path:
            assert headers["authorization"] == "Bearer hf_secret"
        if path.startswith("/storage/"):
            assert "authorization" not in headers


def test_a_connection_that_breaks_goes_on_where_it_stopped(home: Home, hub: Site) -> None:
    hub.cut_after = 300_000
    result = pull(home, REPO, nothing, endpoint=hub.address)
    assert verify_base(home, result.base.digest) == []
    ranges = [headers.get("range") for headers in hub.fetched(f"/storage/{hub.commit}/model.safetensors")]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_connection_that_stays_dead_is_said_and_what_came_is_kept(home: Home, hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.fetch.ATTEMPTS", 1)
    hub.cut_after = 300_000
    with pytest.raises(PullError, match=r"broke off.*goes on from there"):
        pull(home, REPO, nothing, endpoint=hub.address)
    assert list_bases(home) == [] and list(home.staging.iterdir()) == []
    hub.cut_after = None
    hub.requests.clear()
    pull(home, REPO, nothing, endpoint=hub.address)
    assert [headers.get("range") for headers in hub.fetched("/storage/" + hub.commit + "/model.safetensors")] == ["bytes=300000-"]
    assert hub.fetched("/storage/" + hub.commit + "/config.json") == [], "what was complete is not fetched again"


def test_a_server_that_knows_no_ranges_sends_it_all_again(home: Home, hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.fetch.ATTEMPTS", 1)
    hub.cut_after = 300_000
    with pytest.raises(PullError):
        pull(home, REPO, nothing, endpoint=hub.address)
    hub.cut_after, hub.honours_ranges = None, False
    result = pull(home, REPO, nothing, endpoint=hub.address)
    assert verify_base(home, result.base.digest) == []


def test_a_killed_pull_is_resumed(home: Home, hub: Site) -> None:
    hub.stall_after = 327_680
    command = [sys.executable, "-c", PULL, str(home.root), REPO, hub.address]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        while not (line := child.stdout.readline()).startswith("model.safetensors 262144"):
            assert line, "the child ended too early"
    child.kill()
    child.wait()
    hub.stall_after = None
    hub.requests.clear()
    result = pull(home, REPO, nothing, endpoint=hub.address)
    assert verify_base(home, result.base.digest) == []
    (headers,) = hub.fetched("/storage/" + hub.commit + "/model.safetensors")
    assert int(headers["range"].removeprefix("bytes=").removesuffix("-")) >= 262144
    assert list(home.staging.iterdir()) == []


def test_two_processes_bring_it_once(home: Home, hub: Site) -> None:
    hub.stall_after = 65_536  # until the second one waits for the first
    command = [sys.executable, "-u", "-c", PULL, str(home.root), REPO, hub.address]
    weights = "/storage/" + hub.commit + "/model.safetensors"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        while not hub.fetched(weights):
            assert first.stdout.readline(), "the first one ended too early"
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            waits = next((line for line in second.stdout if "Waiting for process" in line), "")
            hub.stall_after = None
            outputs = [child.communicate(timeout=PATIENCE_S)[0] for child in (first, second)]
    assert waits and [first.returncode, second.returncode] == [0, 0]
    assert sorted(output.splitlines()[-1] for output in outputs) == ["already", "brought"]
    assert len(hub.fetched(weights)) == 1
    assert len(list_kept(home)) == len(list_bases(home)) == 1


def test_wrong_bytes_are_deleted_and_both_digests_said(home: Home, hub: Site) -> None:
    hub.claimed["model.safetensors"] = "0" * 64
    with pytest.raises(WrongBytes, match=r"SHA-256 0{64}, not [0-9a-f]{64}.*deleted"):
        pull(home, REPO, nothing, endpoint=hub.address)
    assert not list(home.downloads.rglob("model.safetensors*"))
    assert list_bases(home) == []
    hub.claimed.clear()
    pull(home, REPO, nothing, endpoint=hub.address)


def test_a_partial_file_of_garbage_does_not_get_through(home: Home, hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.fetch.ATTEMPTS", 1)
    hub.cut_after = 300_000
    with pytest.raises(PullError):
        pull(home, REPO, nothing, endpoint=hub.address)
    (part,) = home.downloads.rglob("model.safetensors.part")
    part.write_bytes(b"\0" * 300_000)
    hub.cut_after = None
    with pytest.raises(WrongBytes):
        pull(home, REPO, nothing, endpoint=hub.address)
    pull(home, REPO, nothing, endpoint=hub.address)


def test_a_failed_check_keeps_the_download_for_the_next_attempt(home: Home, hub: Site) -> None:
    def check(folder: Path) -> None:
        if (folder / "model.safetensors").exists():
            raise CheckpointError("weights", "must be finite")

    with pytest.raises(CheckpointError):
        pull(home, REPO, check, endpoint=hub.address)
    assert list_bases(home) == []
    hub.requests.clear()
    pull(home, REPO, nothing, endpoint=hub.address)
    assert not any("/storage/" in path for path, _ in hub.requests)


def test_downloads_that_nobody_went_on_with_are_swept(home: Home, hub: Site) -> None:
    home.create()
    for name in ("old", "new"):
        (home.downloads / name).mkdir()
        (home.downloads / name / "model.safetensors.part").write_bytes(b"half")
    for path in (home.downloads / "old" / "model.safetensors.part", home.downloads / "old"):
        os.utime(path, (1e9, 1e9))
    pull(home, REPO, nothing, endpoint=hub.address)
    assert [path.name for path in home.downloads.iterdir()] == ["new"]


def test_what_is_refused_by_its_small_files_costs_no_weights(home: Home, hub: Site) -> None:
    def check(folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json"}
        raise CheckpointError("architecture", "is unknown")

    with pytest.raises(CheckpointError):
        pull(home, REPO, check, endpoint=hub.address)
    assert not hub.fetched("model.safetensors")


def test_a_file_that_does_not_end_is_given_up(hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a known size nor of an unknown one."""
    monkeypatch.setattr("ingle.home.fetch.MAX_UNSIZED", 1000)
    hub.paths["/endless"], hub.sized = b"x" * (4 << 20), False
    for size in (2000, None):
        with pytest.raises(WrongBytes, match=f"at most {size or 1000} bytes"):
            fetch(Remote("endless", f"{hub.address}/endless", size), tmp_path / "endless")
        assert list(tmp_path.iterdir()) == []
    hub.paths["/right"] = b"x" * 900
    for size in (900, None):
        fetch(Remote("right", f"{hub.address}/right", size), tmp_path / f"right-{size}")


def test_a_sharded_repository_and_its_missing_shard(home: Home, hub: Site) -> None:
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    hub.files["model-1.safetensors"] = b"1"
    with pytest.raises(PullError, match=r"no model-2\.safetensors"):
        pull(home, REPO, nothing, endpoint=hub.address)
    hub.files["model-2.safetensors"] = b"2"
    hub.commit = "c" * 40
    names = [file.name for file in pull(home, REPO, nothing, endpoint=hub.address).base.files]
    assert "model-1.safetensors" in names and "model.safetensors.index.json" in names and "model.safetensors" not in names


def test_a_repository_of_gguf_files_says_which(home: Home, hub: Site) -> None:
    hub.files = {"README.md": b"", "m-Q4_0.gguf": b"4", "sub/m-Q8_0.gguf": b"8"}
    with pytest.raises(PullError, match=rf"m-Q4_0\.gguf, sub/m-Q8_0\.gguf.*ingle pull {REPO}/m-Q4_0\.gguf"):
        pull(home, REPO, nothing, endpoint=hub.address)
    result = pull(home, f"{REPO}/sub/m-Q8_0.gguf", nothing, endpoint=hub.address)
    assert [file.name for file in result.base.files] == ["m-Q8_0.gguf"]
    assert result.kept.name == "m-Q8_0"
    with pytest.raises(PullError, match=r"It holds m-Q4_0\.gguf, sub/m-Q8_0\.gguf"):
        pull(home, f"{REPO}/m-Q5_0.gguf", nothing, endpoint=hub.address)


@pytest.mark.parametrize(
    ("what", "message"),
    [("someone/unknown", "The hub has no repository someone/unknown"), (f"{REPO}@nowhere", "has no revision nowhere")],
)
def test_what_the_hub_does_not_have(home: Home, hub: Site, what: str, message: str) -> None:
    with pytest.raises(PullError, match=message):
        pull(home, what, nothing, endpoint=hub.address)


@pytest.mark.parametrize(("status", "message"), [(403, "no right to it"), (404, "may have moved"), (503, "goes on from there")])
def test_a_storage_that_refuses(home: Home, hub: Site, status: int, message: str) -> None:
    hub.status = status
    with pytest.raises(PullError, match=f"HTTP {status}.*{message}"):
        pull(home, REPO, nothing, endpoint=hub.address)


def test_no_network(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(PullError, match=r"hub did not answer.*Check the network"):
        pull(home, REPO, nothing, endpoint="http://127.0.0.1:9")
    assert sum(slept) < 20, "it doesn't try for long"


def test_a_disk_that_fills_up_keeps_what_came(small_disk: Path, hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["model.safetensors"] = bytes(range(256)) * (3 << 12)  # 3 MiB, on a disk of 2
    home = Home(small_disk / "home")
    with pytest.raises(PullError, match=r"MB free"):
        pull(home, REPO, nothing, endpoint=hub.address)
    monkeypatch.setattr("ingle.home.hub.need_space", lambda *_: None)
    with pytest.raises(HomeError, match=r"No space left.*Free some disk space"):
        pull(home, REPO, nothing, endpoint=hub.address)
    assert list_bases(home) == [] and list(home.staging.iterdir()) == []
    (part,) = home.downloads.rglob("model.safetensors.part")
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert part.stat().st_size > 1 << 20
    hub.requests.clear()
    result = pull(home, REPO, nothing, endpoint=hub.address)
    assert verify_base(home, result.base.digest) == []
    assert all("range" in headers for headers in hub.fetched("/storage/" + hub.commit + "/model.safetensors"))
