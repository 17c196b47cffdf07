"""Clients that mean harm, or have lost their way, on the wire: while they try, another client's answer goes on as if they weren't there."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.conftest import copied
from tests.serve.servers import SLOWLY, Server, answer_on, dial, error_of, head, memory, request, serving, settings
from tests.serve.test_serve_operation import figures
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.journey

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 30_000, "stream": True, "seed": 1, "repeat_limit": 0
}  # fmt: skip
CALM = 1500  # tokens of the answer that another client gets meanwhile
SHORT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "seed": 1}
IMPATIENT = """
import os, threading, time, ingle.serve.gateway as front, ingle.serve.server as server
from pathlib import Path
usual, home = (front.BODY_S, front.WHOLE_BODY_S, server.HEAD_S), Path(os.environ["INGLE_HOME"])
def heed():
    while True:
        short = (home / "be-impatient").exists()
        front.BODY_S, front.WHOLE_BODY_S, server.HEAD_S = (0.5, 1.5, 0.5) if short else usual
        (home / "is-impatient").touch() if short else (home / "is-impatient").unlink(missing_ok=True)
        time.sleep(0.01)
threading.Thread(target=heed, daemon=True).start()
"""
"""It has little patience while there is a file: whoever means well sends nothing then, for a slow machine could make them late, too."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server with two places, of which one client has one."""
    home = copied(kept_home, tmp_path_factory.mktemp("strict") / "home")
    with serving(home, *settings(places=2, queue=20), before=IMPATIENT) as server:
        yield server


@contextmanager
def another(server: Server) -> Iterator[threading.Thread]:
    """Another client's answer during the block: it must come whole, and be the one that comes when nobody disturbs."""
    calm = server.chat("A calm question.", max_tokens=CALM, seed=7, repeat_limit=0).json()["choices"][0]["message"]["content"]
    begun = threading.Event()
    said: list[str] = []

    def ask() -> None:
        body = LONG | {"messages": [{"role": "user", "content": "A calm question."}], "max_tokens": CALM, "seed": 7}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
            begun.set()
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
        said.append("".join(choice["delta"].get("content", "") for line in lines for choice in json.loads(line)["choices"]))

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(PATIENCE_S)
    try:
        yield thread
    finally:
        thread.join()
    assert said == [calm]


def answers_and_is_idle(server: Server) -> None:
    assert server.chat().status_code == 200
    server.idle()


def test_bodies_that_are_too_big_are_refused_however_they_come(server: Server) -> None:
    with another(server):
        told = dial(server)
        with told:  # the length is enough: nothing of it has to come
            told.sendall(head(server, headers=["Content-Type: application/json", f"Content-Length: {1 << 40}"]) + b"\r\n")
            status, headers, body = answer_on(told)
            assert status == 413 and headers["connection"] == "close" and json.loads(body)["error"]["type"] == "invalid_request_error"
        untold = dial(server)
        with untold:
            untold.sendall(head(server, headers=["Content-Type: application/json", "Transfer-Encoding: chunked"]) + b"\r\n")
            chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            for _ in range((8 << 20) // 0x10000 + 1):
                untold.sendall(chunk)
            status, headers, body = answer_on(untold)
            assert status == 413 and headers["connection"] == "close" and "8388608 bytes" in json.loads(body)["error"]["message"]
        with pytest.raises(httpx.HTTPStatusError, match="413"):
            server.post("/v1/chat/completions", b" " * (9 << 20)).raise_for_status()
    answers_and_is_idle(server)


def test_who_sends_a_byte_now_and_then_holds_nothing(strict: Server) -> None:
    server = strict
    with another(server):
        be_impatient(server, True)
        silent, heady, slow_head, slow_body, dripping = (dial(server) for _ in range(5))
        heady.sendall(b"POST /v1/chat/completions HT")
        slow_body.sendall(head(server, headers=["Content-Type: application/json", "Content-Length: 1000"]) + b"\r\n{")
        dripping.sendall(head(server, headers=["Content-Type: application/json", "Content-Length: 1000"]) + b"\r\n{")

        def drip(wire: socket.socket, byte: bytes) -> bool:
            """Whether the server has had enough."""
            try:
                wire.sendall(byte)
                wire.settimeout(0.05)
                return wire.recv(1, socket.MSG_PEEK) is not None
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(lambda: drip(slow_head, b"X"), "who drips a head is cut off")
        wait_until(lambda: drip(dripping, b" "), "who drips a body is cut off")
        for wire in (silent, heady):
            assert wire.recv(1) == b""  # closed without a word: there was no request
        for wire in (slow_body, dripping):
            wire.settimeout(PATIENCE_S)
            status, headers, body = answer_on(wire)
            assert status == 408 and headers["connection"] == "close" and json.loads(body)["error"]["type"] == "invalid_request_error"
        for wire in (silent, heady, slow_head, slow_body, dripping):
            wire.close()
        be_impatient(server, False)
    answers_and_is_idle(server)


def be_impatient(server: Server, short: bool) -> None:
    wanted, is_so = server.home.root / "be-impatient", server.home.root / "is-impatient"
    wanted.touch() if short else wanted.unlink()
    wait_until(lambda: is_so.exists() == short, "its patience has changed")


def test_many_silent_clients_shut_nobody_out(served_home: Path) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))"
    with serving(served_home, before=few) as server:
        silent = [dial(server) for _ in range(400)]
        assert server.chat(store=True).status_code == 200
        for wire in silent:
            wire.close()


def test_a_head_without_end_is_cut_off(server: Server) -> None:
    lines = 0
    with another(server), dial(server) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for lines in range(20_000):
                wire.sendall(f"X-{lines}: ".encode() + b"x" * 8000 + b"\r\n")
    assert lines * 8000 < 64 << 20, "it took no more than the system's buffers hold"
    with dial(server) as wire:
        wire.sendall(head(server, "/health", "GET", ["X-Long: " + "x" * 100_000]) + b"\r\n")
        assert answer_on(wire)[0] == 200
    answers_and_is_idle(server)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50, b"GET\r\n\r\n", b"POST /v1/chat/completions HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n", b"\r\n" * 1000 + b"x",
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused(server: Server, nonsense: bytes) -> None:
    with dial(server) as wire:
        wire.sendall(nonsense)
        wire.shutdown(socket.SHUT_WR)
        said = b""
        while piece := wire.recv(4096):
            said += piece
    assert not said or said.startswith(b"HTTP/1.1 40"), said[:200]
    answers_and_is_idle(server)


def test_an_old_client_without_a_host_is_refused(server: Server) -> None:
    with dial(server) as wire:
        wire.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert answer_on(wire)[0] == 403


def test_requests_in_a_row_on_one_wire_are_answered_in_a_row(server: Server) -> None:
    bodies = [json.dumps(SHORT | {"seed": seed}).encode() for seed in range(4)]
    alone = [server.post("/v1/chat/completions", body).json()["choices"] for body in bodies]
    with dial(server) as wire:
        wire.sendall(b"".join(request(server, body) for body in bodies))
        reader = wire.makefile("rb")
        for choices in alone:
            assert reader.readline().split()[1] == b"200"
            length = 0
            while line := reader.readline().strip():
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            assert json.loads(reader.read(length))["choices"] == choices
        reader.close()
    answers_and_is_idle(server)


@pytest.mark.parametrize("farewell", ["closes", "resets", "closes one half"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_while_its_answer_is_written_frees_its_place(server: Server, farewell: str, stream: bool) -> None:
    before = len(server.answers())
    with another(server) as other:
        body = json.dumps(LONG | {"stream": stream}).encode()
        wire = dial(server)
        wire.sendall(request(server, body))
        if stream:
            wire.recv(100)

        def is_written() -> bool:
            beside = int(other.is_alive())  # asked first: it may end between the two
            return int(server.health()["running"]) > beside

        wait_until(is_written, "the answer is being written")
        steps = figures(server)["ingle_steps_total"]
        wait_until(lambda: figures(server)["ingle_steps_total"] > steps + 5, "some of it is written")
        hang_up(wire, farewell)
        wait_until(lambda: server.health()["running"] <= 1, "its place is free")
        wire.close()
    server.idle()

    def cancelled() -> list[Any]:
        return [row.values for row in server.answers()[before:] if row.values["finish"] == "cancelled"]

    [facts] = wait_until(cancelled, "what was written is recorded")
    assert 0 < facts["completion_tokens"] < LONG["max_tokens"]


def hang_up(wire: socket.socket, how: str) -> None:
    if how == "closes one half":
        wire.shutdown(socket.SHUT_WR)
        return
    if how == "resets":
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.close()


def test_a_client_that_hangs_up_while_its_prompt_is_read_frees_its_place(served_home: Path) -> None:
    body = LONG | {"messages": [{"role": "user", "content": "All work and no play makes Jack a dull boy. " * 180}], "max_tokens": 100}
    hold = served_home / "hold"
    with serving(served_home, before=SLOWLY) as server:
        for count, stream in enumerate((True, False), 1):
            hold.touch()
            wire = dial(server)
            wire.sendall(request(server, json.dumps(body | {"stream": stream}).encode()))
            wait_until(lambda: server.health()["running"] == 1, "the prompt is being read")
            wire.close()
            wait_until(lambda count=count: server.log.count('"/v1/chat/completions"') == count, "it has noticed")
            hold.unlink()
            server.idle()
        assert server.chat().status_code == 200
        written = [row.values["completion_tokens"] for row in server.answers() if row.values["finish"] == "cancelled"]
        assert written == [0] * len(written)
        assert figures(server)["ingle_step_rows_total"] < 3000, "of the prompts only a part was read"


def test_clients_that_hang_up_in_the_queue_leave_no_trace(strict: Server) -> None:
    before, writing = len(strict.answers()), dial(strict)
    writing.sendall(request(strict, json.dumps(LONG).encode()))
    writing.recv(100)
    waiting = [dial(strict) for _ in range(8)]
    for wire in waiting:  # of two places one user has one
        wire.sendall(request(strict, json.dumps(SHORT).encode()))
    wait_until(lambda: strict.health()["queued"] == 8, "all wait")
    for wire in waiting:
        wire.close()
    wait_until(lambda: strict.health()["queued"] == 0, "nobody waits")
    assert strict.health()["running"] == 1
    writing.close()
    answers_and_is_idle(strict)
    assert [row.values["finish"] for row in strict.answers()[before:]] == ["cancelled", "length"]


def test_a_client_that_never_reads_holds_no_place_and_no_one_else(strict: Server) -> None:
    before, wires = len(strict.answers()), []
    for _ in range(4):
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        wire.connect(strict.address)
        wire.sendall(request(strict, json.dumps(LONG | {"max_tokens": 1500}).encode()))
        wires.append(wire)
    with another(strict):
        pass
    strict.idle()
    for wire in wires:
        wire.close()
    wait_until(lambda: len(strict.answers()) >= before + 6, "the four are recorded, and the two of the other client")


def test_a_hundred_who_come_and_go_leave_nothing_behind(server: Server) -> None:
    before = len(server.answers())

    def come_and_go() -> int:
        """What the server holds then."""
        with another(server):
            for i in range(100):
                wire = dial(server)
                wire.sendall(request(server, json.dumps(LONG | {"seed": i}).encode())[: None if i % 3 else -5])
                if i % 2:
                    wire.settimeout(0.01)
                    with suppress(TimeoutError):
                        wire.recv(10)
                hang_up(wire, ["closes", "resets"][i % 2])
                wire.close()
        server.idle()
        wait_until(lambda: len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 60, "files and sockets are closed")
        return memory(server)

    warm = come_and_go()
    assert come_and_go() - warm < 100 << 20
    events = [row.values for row in server.answers()[before:]]
    assert all(facts["finish"] == "cancelled" or facts["completion_tokens"] == CALM for facts in events)


FOREIGN = [
    ({"Host": "evil.example"}, "Host"), ({"Host": "127.0.0.1.evil.example:80"}, "Host"), ({"Host": ""}, "Host"),
    ({"Host": "evil.example:127.0.0.1"}, "Host"), ({"Origin": "https://evil.example"}, "Origin"), ({"Origin": "null"}, "Origin"),
    ({"Origin": "http://localhost:9"}, "Origin"), ({"Origin": "http://127.0.0.1"}, "Origin"), ({"Origin": ""}, "Origin"),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "field"), FOREIGN)
def test_pages_of_other_sites_are_turned_away(server: Server, headers: dict[str, str], field: str) -> None:
    before = len(server.answers())
    for response in (
        server.post("/v1/chat/completions", SHORT, headers),
        server.get("/v1/models", headers),
        server.get("/health", headers),
    ):
        assert response.status_code == 403, response.text
        assert error_of(response)["type"] == "permission_error" and error_of(response)["message"].startswith(field)
    assert len(server.answers()) == before


def test_no_other_sites_page_gets_a_websocket(served_home: Path) -> None:
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    with serving(served_home, "--page") as server:
        host, port = server.address
        for headers, status in (*((headers, b"403") for headers, _ in FOREIGN), ({"Origin": server.url, "Host": f"{host}:{port}"}, b"101")):
            with dial(server) as wire:
                told = [f"{name}: {value}" for name, value in headers.items()]
                wire.sendall(head(server, "/v1/voice?tab=x", "GET", [*upgrade, *told]) + b"\r\n")
                assert wire.recv(100).split()[1] == status, headers


def test_its_own_page_is_let_in_by_every_name_of_this_machine(server: Server) -> None:
    _, port = server.address
    for name in ("127.0.0.1", "localhost", "[::1]"):
        host = f"{name}:{port}"
        assert server.post("/v1/chat/completions", SHORT, {"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_no_answer_ever_lets_another_site_in_and_all_carry_what_keeps_browsers_safe(server: Server) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    mine = {"Origin": server.url}
    responses = [
        httpx.options(f"{server.url}/v1/chat/completions", headers=asked, timeout=PATIENCE_S),
        httpx.options(f"{server.url}/v1/chat/completions", headers=mine, timeout=PATIENCE_S),
        server.get("/v1/models", mine), server.get("/health"), server.get("/metrics"), server.get("/nowhere"), server.get("/openapi.json"),
        server.chat(headers=mine), server.chat(stream=True), server.chat(temperature=-1), server.chat(model="other"),
        server.post("/v1/chat/completions", b"{"), server.chat(headers={"Host": "evil.example"}),
        server.chat(headers={"Authorization": "Bearer ingle-x"}),
    ]  # fmt: skip
    assert [response.status_code for response in responses] == [403, 405, 200, 200, 200, 404, 200, 200, 200, 400, 404, 400, 403, 401]
    for response in responses:
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert response.headers["x-content-type-options"] == "nosniff" and response.headers["x-frame-options"] == "DENY"
        policy = dict(part.split(None, 1) for part in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and "'unsafe-eval'" not in str(policy)
        assert "server" not in response.headers
        assert response.headers["referrer-policy"] == "no-referrer"
    assert responses[8].headers["cache-control"] == "no-store"
