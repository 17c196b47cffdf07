"""`ingle pull` without a name, near names, and pulling a model of the catalogue from a hub on this machine."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingle.core.errors import KernelError, PullError
from ingle.engine import bandwidth as room
from ingle.home.catalogue import ON_HUB
from ingle.home.kept import list_kept
from ingle.home.place import Home
from tests.cli.place import COMMAND, environment, ingle
from tests.home.site_servers import Site
from tests.hubs import MODEL, NAME, catalogue_hub, hub_environment
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey


@pytest.fixture
def hub(smollm2_gguf: Path) -> Iterator[Site]:
    with catalogue_hub(smollm2_gguf) as site:
        yield site


def run(home: Path, site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own: the hub's library reads its address once."""
    env = environment(home, hub_environment(site, home))
    return subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=180, check=False)


def as_if_alone(home: Path) -> dict[str, Any]:
    """The measurement that a home keeps, from now on as one beside no other programs; tests run beside many."""
    path = home / "cache" / "speed.json"
    table: dict[str, Any] = json.loads(path.read_bytes())
    path.write_text(json.dumps({**table, "others": 0.0}))
    return table


def test_the_list_says_what_each_needs_and_how_fast_it_would_be_here(tmp_path: Path) -> None:
    first = ingle(tmp_path, "pull")
    assert "is measured once" in first.stderr and "Speed is predicted" in first.stderr
    lines = first.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["smollm2", *ON_HUB]
    assert lines[0].split("  ")[0] == "NAME" and "SPEED HERE" in lines[0]
    assert "not foretold" in lines[1] and not any("not foretold" in line for line in lines[2:])
    row = next(line for line in lines if line.startswith("smollm2-1.7b"))
    assert all(text in row for text in ("1.7B", "Apache-2.0", "1.1 GB", "2.1 GB", "tokens/s"))
    assert "Llama-3.2-Community" in first.stdout and "terms of use" in first.stderr
    provisional = as_if_alone(tmp_path)["others"] > 0.2
    assert ("the next list measures again" in first.stderr) == provisional
    again = ingle(tmp_path, "pull")
    assert "is measured once" not in again.stderr
    table = json.loads(ingle(tmp_path, "pull", "--json").stdout)
    assert {one["name"] for one in table["models"]} == {"smollm2", *ON_HUB}
    assert table["machine"]["bytes_per_s"].keys() >= {"Q4_K", "Q6_K"}
    old = table["machine"]
    assert "is measured once" in ingle(tmp_path, "pull", "--measure").stderr
    as_if_alone(tmp_path)
    assert json.loads(ingle(tmp_path, "pull", "--json").stdout)["machine"]["bytes_per_s"] != old["bytes_per_s"]
    assert not json.loads(ingle(tmp_path, "list", "--json").stdout), "nothing was pulled"


@pytest.mark.parametrize("option", [("--name", "x"), ("--update",), ("--onto", "smollm2"), ("--format", "int8")])
def test_options_about_one_model_want_one(tmp_path: Path, option: tuple[str, ...]) -> None:
    result = ingle(tmp_path, "pull", *option, code=2)
    assert f"WHAT is missing: {option[0]} is about one model" in result.stderr and not result.stdout


def test_near_names_are_suggested(tmp_path: Path) -> None:
    result = ingle(tmp_path, "pull", "llama3", code=5)
    assert "llama3 is not a known model. Did you mean llama3.2-3b? `ingle pull` lists all known models." in result.stderr
    assert not (tmp_path / "bases").exists()


def test_a_model_comes_from_the_hub_and_answers(tmp_path: Path, hub: Site) -> None:
    result = run(tmp_path, hub, "pull", NAME)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{NAME} is kept: 98.4 MB from hub:{MODEL.repo}/{MODEL.file}")
    hub.requests.clear()
    assert "was kept already" in run(tmp_path, hub, "pull", NAME).stdout and not hub.requests, "the pin holds without the network"
    [fact] = [json.loads(line) for line in ingle(tmp_path, "log", "--json").stdout.splitlines()]
    assert (fact["kind"], fact["subject"]) == ("pull", NAME) and hub.commit in json.dumps(fact)
    row = next(one for one in json.loads(ingle(tmp_path, "pull", "--json").stdout)["models"] if one["name"] == NAME)
    assert row["kept"] == NAME
    assert ingle(tmp_path, "run", "What is the capital of France?", NAME).stdout.strip()


def test_what_is_too_large_is_refused_before_the_network_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise PullError("hub", "was asked")

    monkeypatch.setattr("ingle.home.pull.resolve", asked)
    monkeypatch.setattr(room, "room_of", lambda _: room.MachineRoom(1 << 30, 1 << 30, 1 << 40))
    refused = ingle(tmp_path, "pull", "qwen3-8b", code=5)
    assert "this machine has 1.1 GB" in refused.stderr and "--force" in refused.stderr and "was asked" not in refused.stderr
    forced = ingle(tmp_path, "pull", "qwen3-8b", "--force", code=5)
    assert "this machine has 1.1 GB" in forced.stderr and "hub was asked" in forced.stderr, "a warning, and on it goes"
    monkeypatch.setattr(room, "room_of", lambda _: room.MachineRoom(1 << 40, 1 << 40, 1 << 30))
    for more in ((), ("--force",)):
        full = ingle(tmp_path, "pull", "qwen3-8b", *more, code=5).stderr
        assert "1.1 GB is free" in full and "was asked" not in full


def test_a_server_s_pull_tells_its_progress_and_ends_with_its_input(tmp_path: Path, hub: Site) -> None:
    hub.stall_after = 8 << 20
    env = environment(tmp_path, hub_environment(hub, tmp_path))
    command = [*COMMAND, "pull", NAME, "--attached"]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        for line in child.stdout:
            if json.loads(line).get("label") == MODEL.file:
                break
        child.stdin.close()
        child.stdout.read()
        assert child.wait(PATIENCE_S) in (130, -signal.SIGINT)
    assert not list_kept(Home(tmp_path)) and list((tmp_path / "cache" / "downloads").rglob("*.part"))
    hub.stall_after = None
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [json.loads(line) for line in child.stdout]
        assert child.wait(PATIENCE_S) == 0
    assert told[-1] == {"kept": NAME}
    assert {"bytes", "pieces"} == {one["unit"] for one in told if "unit" in one}
    wait_until(lambda: [kept.name for kept in list_kept(Home(tmp_path))] == [NAME], "it is kept")


def test_a_machine_that_can_not_be_measured_has_a_list_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KernelError("kernel linear_q4_k", "must compile on this machine", "no")

    monkeypatch.setattr("ingle.engine.bandwidth.measure", fails)
    result = ingle(tmp_path, "pull")
    assert "must compile on this machine" in result.stderr
    assert all("  not foretold  " in line for line in result.stdout.splitlines()[1:])
    assert json.loads(ingle(tmp_path, "pull", "--json").stdout)["machine"] is None


def test_a_missing_model_of_the_catalogue_says_how_to_get_it(tmp_path: Path) -> None:
    assert "`ingle pull qwen3-8b` brings it from the hub, about 5.0 GB" in ingle(tmp_path, "run", "hi", "qwen3-8b", code=3).stderr
