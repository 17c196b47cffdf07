"""Who may ask: keys, how often, and from where."""

import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, answer_on, dial, error_of, head, launch, serving, settings
from tests.waiting import PATIENCE_S, wait_until

NEEDS = settings(require_key=True)


def add(home: Path, name: str, *options: str) -> str:
    """A new key's secret."""
    secret: str = json.loads(ingle(home, "key", "add", name, "--json", *options).stdout)["key"]
    return secret


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[tuple[Server, str]]:
    """A server that wants keys, and one of them."""
    home = copied(kept_home, tmp_path_factory.mktemp("keyed") / "home")
    key = add(home, "ann")
    with serving(home, *NEEDS) as server:
        yield server, key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_a_good_key_nothing_is_told(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    before = len(server.answers())
    for bad in (
        "",
        "Bearer",
        f"Basic {key}",
        key,
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Bearer {key.upper()}",
        "Bearer ingle-",
        "Bearer sk-1234",
    ):
        key_given = {"Authorization": bad}
        for response in (
            server.chat(headers=key_given), server.get("/v1/models", key_given), server.get("/metrics", key_given),
            server.get("/v1/responses/x", key_given), server.post("/v1/completions", {"prompt": "a"}, key_given),
            server.post("/v1/responses", {"input": "a"}, key_given), server.post("/v1/chat/completions", b"{", key_given),
        ):  # fmt: skip
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert error_of(response)["type"] == "authentication_error" and key not in response.text
    assert len(server.answers()) == before
    assert server.get("/health").status_code == 200  # that it lives is no secret
    assert server.chat(headers=bearer(key)).status_code == 200
    assert server.chat(headers={"Authorization": f"bearer  {key}"}).status_code == 200


def test_the_key_is_asked_for_before_a_body_is_read(keyed: tuple[Server, str]) -> None:
    server, _ = keyed
    with dial(server) as wire:
        wire.sendall(head(server, headers=["Content-Type: application/json", "Content-Length: 8000000"]) + b"\r\n{")
        assert answer_on(wire)[0] == 401


def test_the_package_gets_its_own_error(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    with pytest.raises(openai.AuthenticationError):
        server.openai("ingle-wrong").models.list()
    assert [model.id for model in server.openai(key).models.list()] == ["tiny"]


def test_a_revoked_key_is_out_at_once_and_a_new_one_is_in(keyed: tuple[Server, str]) -> None:
    server, _ = keyed
    key = add(server.home.root, "bob")
    assert server.chat(headers=bearer(key)).status_code == 200
    ingle(server.home.root, "key", "revoke", "bob")
    assert server.chat(headers=bearer(key)).status_code == 401


def test_a_wrong_key_is_refused_even_where_none_is_needed(server: Server) -> None:
    assert server.chat(headers=bearer("ingle-wrong")).status_code == 401
    assert server.chat(headers=bearer("sk-any-word-that-clients-insist-on")).status_code == 200


def test_who_asks_too_often_is_told_when_to_come_back(keyed: tuple[Server, str]) -> None:
    server, other = keyed
    key = add(server.home.root, "busy", "--requests-per-minute", "3")
    client = server.openai(key)
    for _ in range(3):
        client.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        client.models.list()
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 20
    assert refused.value.type == "rate_limit_error" and refused.value.param == "requests"
    assert server.chat(headers=bearer(key)).status_code == 429
    assert server.chat(headers=bearer(other)).status_code == 200


def test_an_answer_names_its_key_and_belongs_to_it(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    response = server.chat("mine", headers=bearer(key), store=True)
    [row] = [row for row in server.answers() if row.seq == response.json()["ingle"]["events"][0]]
    [mine] = [line for line in json.loads(ingle(server.home.root, "key", "list", "--json").stdout) if line["name"] == "ann"]
    assert row.values["key"] == mine["id"]
    other = add(server.home.root, "eve")
    path = f"/v1/responses/{response.json()['id']}"
    assert server.get(path, bearer(other)).status_code == 404
    assert server.post("/v1/responses", {"input": "on", "previous_response_id": response.json()["id"]}, bearer(other)).status_code == 404
    assert server.get(path, bearer(key)).status_code == 200


def test_secrets_are_nowhere_in_the_home_and_never_in_the_log(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    server.chat(headers=bearer(key))
    server.chat(headers=bearer(key + "x"))
    with sqlite3.connect(server.home.database_file) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.close()
    for path in server.home.root.rglob("*"):
        if path.is_file() and "bases" not in path.parts and "packs" not in path.parts:
            assert key.encode() not in path.read_bytes(), path
    assert key not in server.log


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_needs_a_key(served_home: Path, host: str) -> None:
    process = launch(served_home, "--host", host)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 12 and not out
    assert len(err.decode().splitlines()) == 1 and "needs a key" in err.decode() and "ingle home keys add" in err.decode()
    key = add(served_home, "laptop")
    with serving(served_home, "--host", host) as server:
        assert server.chat().status_code == 401
        assert server.chat(headers=bearer(key)).status_code == 200
        # Behind such an address we can't know our names: a key is what foreign pages lack.
        assert server.get("/v1/models", {**bearer(key), "Host": "ingle.lan"}).status_code == 200
        assert server.get("/v1/models", {**bearer(key), "Origin": "https://evil.example"}).status_code == 403


def test_a_name_for_others_needs_a_key_on_loopback_too(served_home: Path) -> None:
    """Behind a proxy everybody comes from this machine."""
    named = settings(hosts=["Ingle.lan"])
    process = launch(served_home, *named)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 12 and "needs a key" in err.decode()
    key = add(served_home, "laptop")
    with serving(served_home, *named) as server:
        for host in ("ingle.lan", "INGLE.lan", "127.0.0.1"):
            assert server.chat(headers={"Host": host}).status_code == 401
            assert server.chat(headers={**bearer(key), "Host": host}).status_code == 200
        assert server.get("/health", {"Host": "ingle.lan.evil.example"}).status_code == 403


def test_a_key_that_is_revoked_last_leaves_the_server_shut(served_home: Path) -> None:
    add(served_home, "one")
    ingle(served_home, "key", "revoke", "one")
    process = launch(served_home, *NEEDS)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 12


def test_a_port_that_is_taken_is_said_in_one_line_before_anything_slow(served_home: Path, server: Server) -> None:
    port = server.address[1]
    opens_none = "import ingle.engine.loading as loading; loading.Opener.__call__ = None"
    process = launch(served_home, "--port", str(port), before=opens_none)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 12
    assert err.decode().splitlines() == [
        f"ingle: Port {port} is in use, maybe by another `ingle serve`. Choose another: ingle serve --port {port + 1}"
    ]
    assert server.chat().status_code == 200


def test_of_two_that_want_one_port_at_the_same_time_one_gets_it(served_home: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [launch(home, "--port", str(port)) for home in (served_home, copied(served_home, tmp_path / "twin"))]
    try:
        codes = wait_until(lambda: any(found := [process.poll() for process in both]) and found, "one of them ends")
        assert codes.count(12) == 1 and codes.count(None) == 1
    finally:
        for process in both:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def test_a_key_that_others_can_read_is_said_in_one_line_before_anything_listens(served_home: Path) -> None:
    ingle(served_home, "run", "hi", "--max-tokens", "1")
    (served_home / "keys" / "answers.key").chmod(0o644)
    process = launch(served_home)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (7, b"") and len(err.decode().splitlines()) == 1 and "chmod 600" in err.decode()


@pytest.mark.parametrize(
    ("options", "code"),
    [
(["--host", "192.0.2.1"], 12), (["nothing"], 3), (["--set", "serve.queue=0"], 2),
    ],
)  # fmt: skip
def test_what_cant_be_served_is_said_in_one_line(served_home: Path, options: list[str], code: int) -> None:
    if "192.0.2.1" in options:
        add(served_home, "key")
    process = launch(served_home, *options)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (code, b"") and len(err.decode().splitlines()) == 1, err
