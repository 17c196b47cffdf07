"""`/v1/catalogue`: what can be pulled, pulling it through the server beside answers, and all that must not be pulled that way."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingle.home.kept import get_kept, list_kept
from ingle.home.lean import is_lean
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.home.site_servers import Site
from tests.homes import lent
from tests.hubs import MODEL, NAME, catalogue_hub, hub_environment
from tests.serve.servers import Server, error_of, serving
from tests.waiting import PATIENCE_S, for_a_while, wait_until

pytestmark = pytest.mark.journey


@pytest.fixture
def hub(smollm2_gguf: Path) -> Iterator[Site]:
    with catalogue_hub(smollm2_gguf) as site:
        yield site


@pytest.fixture
def house(tmp_path: Path, smollm2_home: Home, hub: Site) -> Iterator[Server]:
    """A server with smollm2 and a hub. Its home has a shelf of its own, for what is pulled goes there."""
    home = own_home(smollm2_home, tmp_path / "home")
    with serving(home.root, changes=hub_environment(hub, tmp_path)) as server:
        yield server


def own_home(kept: Home, root: Path) -> Home:
    """A home with links to another one's bases and packs, in folders of its own."""
    home = lent(kept, root)
    for folder in (home.bases, home.packs):
        folder.unlink()
        folder.mkdir()
        for one in (kept.root / folder.name).resolve().iterdir():
            (folder / one.name).symlink_to(one, target_is_directory=True)
    return home


def pull(server: Server, name: Any = NAME, **more: Any) -> Any:
    return server.post("/v1/catalogue/pull", {"name": name, **more})


def state(server: Server) -> dict[str, Any]:
    table: dict[str, Any] = server.get("/v1/catalogue/pull").raise_for_status().json()
    return table


def test_a_model_is_listed_pulled_beside_answers_and_answers(house: Server, hub: Site) -> None:
    listed = {one["name"]: one for one in house.get("/v1/catalogue").raise_for_status().json()["data"]}
    assert listed["smollm2"]["kept"] == "smollm2" and listed[NAME]["kept"] == ""
    assert listed[NAME]["licence"] == "Apache-2.0" and listed[NAME]["tokens_per_s"] is None, "nothing is measured unasked"
    hub.slow_s = 0.001
    begun = pull(house)
    assert begun.status_code == 202 and begun.json()["state"] == "running"
    second = pull(house, "smollm2")
    assert second.status_code == 429 and f"{NAME} is being pulled" in error_of(second)["message"]
    seen = set[str]()

    def ended() -> bool:
        now = state(house)
        seen.add(now["label"])
        return now["state"] != "running"

    assert house.chat("hi").status_code == 200, "it answers meanwhile"
    wait_until(ended, "the pull has ended")
    assert (state(house)["state"], state(house)["kept"]) == ("done", NAME), house.log
    assert {MODEL.file, "checking every weight"} <= seen
    assert NAME in [one["id"] for one in house.get("/v1/models").json()["data"]]
    assert house.chat("What is the capital of France?", model=NAME).status_code == 200
    [fact] = [row for row in house.facts("pull") if row.subject == NAME]
    assert fact.values["revision"] == hub.commit and fact.values["source"] == f"hub:{MODEL.repo}/{MODEL.file}"
    listed = {one["name"]: one for one in house.get("/v1/catalogue").json()["data"]}
    assert listed[NAME]["kept"] == NAME
    pull(house, lean=True).raise_for_status()
    wait_until(lambda: state(house)["state"] == "done", "the pull is done")
    assert is_lean(house.home.base_folder(get_kept(house.home, NAME).base)), "a kept one is made lean, while it is served"
    assert house.chat("What is the capital of France?", model=NAME).status_code == 200
    assert pull(house, lean="yes").status_code == 400
    assert not any(path.endswith("README.md") for path, _ in hub.requests)


def test_a_stopped_pull_goes_on_where_it_was(house: Server, hub: Site) -> None:
    hub.slow_s = 0.01
    pull(house).raise_for_status()
    wait_until(lambda: state(house)["label"] == MODEL.file and state(house)["done"] > 4 << 20, "some of the file has come")
    [child] = children(house.process.pid)
    os.kill(child, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(httpx.delete, f"{house.url}/v1/catalogue/pull", timeout=PATIENCE_S)
        wait_until(lambda: state(house)["state"] == "stopped", "the pull is stopped")
        at_once = pool.submit(pull, house, "smollm2")
        for_a_while(1)
        assert not at_once.done() and not stopping.done(), "it waits for the first one's end"
        os.kill(child, signal.SIGCONT)
        stopped, begun = stopping.result().json(), at_once.result()
    assert stopped["name"] == NAME and stopped["state"] == "stopped" and "goes on there" in stopped["note"]
    assert begun.status_code == 202
    wait_until(lambda: state(house)["state"] == "done", "the pull is done")
    assert NAME not in [kept.name for kept in list_kept(house.home)] and not list(house.home.staging.iterdir())
    [part] = house.home.downloads.rglob("*.part")
    have = part.stat().st_size
    assert have > 4 << 20
    hub.slow_s = 0
    hub.requests.clear()
    pull(house, lean=True).raise_for_status()
    wait_until(lambda: state(house)["state"] == "done", "the pull is done")
    [headers] = hub.fetched(MODEL.file)[-1:]
    assert int(headers["range"].removeprefix("bytes=").removesuffix("-")) >= have
    assert is_lean(house.home.base_folder(get_kept(house.home, NAME).base))
    assert house.chat("What is the capital of France?", model=NAME).status_code == 200


def test_a_pull_ends_with_its_server_even_by_kill(tmp_path: Path, smollm2_home: Home, hub: Site) -> None:
    hub.slow_s = 0.05
    home = own_home(smollm2_home, tmp_path / "home")
    for end in (signal.SIGTERM, signal.SIGKILL):
        with serving(home.root, changes=hub_environment(hub, tmp_path)) as server:
            pull(server).raise_for_status()
            wait_until(lambda: state(server)["label"] == MODEL.file, "the file is coming")
            [child] = children(server.process.pid)
            server.process.send_signal(end)
            server.process.wait(PATIENCE_S)
            wait_until(lambda: not Path(f"/proc/{child}").exists(), "the pull has ended with its server")  # noqa: B023
        assert NAME not in [kept.name for kept in list_kept(home)]


def children(pid: int) -> list[int]:
    """The pulls that a server runs."""
    found = [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    return [one for one in found if b"--attached" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    "name",
    [
        "someone/tiny", "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "/etc/passwd", "../../home", "./model.gguf", "~/x", "--attached",
        "--json", "https://example.org/x.gguf", "file:///etc/passwd", "smollm2-360m@main", "smollm2-360m/../x", "smollm2-360m --force", "",
        " smollm2-360m", "SMOLLM2-360M", "smollm2-360m\n", "Hearing", "painter ", "x" * 5000, "\u202esmollm2", "smollm2-360m\x00",
    ],
)  # fmt: skip
def test_nothing_but_names_of_the_catalogue_is_pulled(server: Server, name: str) -> None:
    response = pull(server, name)
    assert response.status_code == 404 and "The catalogue has no model" in error_of(response)["message"], name
    assert len(response.text) < 1000
    assert state(server)["state"] == "none" and not children(server.process.pid)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"name": 5}', b'{"name": null}', b'{"name": ["smollm2-360m"]}', b'{"name": "smollm2-360m", "force": 1}'],
)
def test_other_bodies_are_refused(server: Server, body: bytes) -> None:
    assert server.post("/v1/catalogue/pull", body).status_code == 400
    assert state(server)["state"] == "none"


def test_another_site_can_not_have_a_browser_pull(server: Server) -> None:
    response = server.post("/v1/catalogue/pull", {"name": NAME}, {"Origin": "https://example.org"})
    assert response.status_code == 403 and state(server)["state"] == "none"


def test_keys_may_look_with_the_right_to_and_never_pull(served_home: Path) -> None:
    plain, seeing = (ingle(served_home, "key", "add", name, *more).stdout.split()[-1] for name, more in (("a", []), ("b", ["--metrics"])))
    with serving(served_home, "--set", "serve.require_key=true") as server:
        for key, looks in (("", 401), (plain, 403), (seeing, 200)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert server.get("/v1/catalogue", headers).status_code == looks
            assert server.get("/v1/catalogue/pull", headers).status_code == looks
            response = server.post("/v1/catalogue/pull", {"name": NAME}, headers)
            assert response.status_code == (401 if not key else 403)
        assert "at the machine itself" in error_of(response)["message"]


def test_a_server_of_some_models_takes_no_more(served_home: Path) -> None:
    """Nor does a small one, which serves one."""
    for options in (("tiny",), ("--small", "tiny")):
        with serving(served_home, *options) as server:
            response = pull(server)
            assert response.status_code == 400 and "offers only tiny" in error_of(response)["message"]


def test_what_fits_nowhere_is_refused_before_the_download(served_home: Path) -> None:
    before = "import ingle.engine.bandwidth as o; r = o.room_of; o.room_of = lambda home: o.MachineRoom(1 << 30, 1 << 30, {disk})"
    with serving(served_home, before=before.format(disk=1 << 40)) as server:
        response = pull(server, "qwen3-8b")
        assert response.status_code == 400 and "this machine has 1.1 GB" in error_of(response)["message"]
        listed = {one["name"]: one for one in server.get("/v1/catalogue").json()["data"]}
        assert not listed["qwen3-8b"]["fits"] and listed[NAME]["fits"]
    with serving(served_home, before=before.format(disk=1 << 28)) as server:
        response = pull(server, NAME, force=True)
        assert response.status_code == 400 and "0.3 GB is free" in error_of(response)["message"]


def test_a_hub_that_can_not_be_reached_is_said(served_home: Path, tmp_path: Path) -> None:
    changes = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN_PATH": str(tmp_path / "no"), "NO_PROXY": "*"}
    with serving(served_home, changes=changes) as server:
        pull(server).raise_for_status()
        wait_until(lambda: state(server)["state"] == "failed", "the pull has failed")
        assert "The hub did not answer" in state(server)["note"]
        assert pull(server).status_code == 202, "and can be tried again"
