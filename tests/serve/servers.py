"""Real servers, started as people start them, and ways to speak with them that no well-behaved client offers."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from ingle.home.place import Home
from ingle.ledger.row import Row
from tests.cli.place import environment, write_model
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    import openai

CONTEXT = 32768
"""Of the tiny model here: long enough that an answer can be interrupted."""
MAIN = "import sys; from ingle.cli.main import main; sys.exit(main())"
JSON = {"Content-Type": "application/json"}
SLOWLY = """
import os, time, ingle.engine.scheduler as scheduler
step, hold = scheduler.Scheduler._step, os.environ["INGLE_HOME"] + "/hold"
def stepped(self):
    outcomes = step(self)
    while os.path.exists(hold): time.sleep(0.01)
    return outcomes
scheduler.Scheduler._step = stepped
"""
"""Python for `before`: after each step of the scheduler it waits while there is a file `hold` in the home."""
BY_HAND = f"""
import os, sys, threading, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.clocks import HandClock
hand, said = HandClock(), Path(os.environ["INGLE_HOME"]) / "move"
def moves():
    while True:
        if said.exists():
            hand.move(float(said.read_text()))
            said.unlink()
        time.sleep(0.01)
threading.Thread(target=moves, daemon=True).start()
"""
"""Python for `before`: makes a clock `hand`, which stands still until `Server.move`. What follows gives it to whoever has patience."""


@dataclass
class Server:
    """A server in a process of its own."""

    process: "subprocess.Popen[bytes]"
    home: Home
    said: str
    """Its first line."""
    _log: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None
    _clients: "dict[tuple[str, int, float], openai.OpenAI]" = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return self.said.split()[3]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a socket."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def openai(self, key: str = "none", retries: int = 0, timeout: float = PATIENCE_S) -> "openai.OpenAI":
        """OpenAI's own client. It is told not to try again, so that tests see every answer."""
        import openai

        wanted = (key, retries, timeout)
        if wanted not in self._clients:
            self._clients[wanted] = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries, timeout=timeout)
        return self._clients[wanted]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One request without a body."""
        return httpx.get(self.url + path, headers=dict(headers or {}), timeout=PATIENCE_S)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, timeout: float = PATIENCE_S) -> httpx.Response:
        """One request: a table, or the very bytes of a body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=data, headers={**JSON, **(headers or {})}, timeout=timeout)

    def chat(self, text: str = "hi", headers: Mapping[str, str] | None = None, **changes: Any) -> httpx.Response:
        """A question of one user, answered in a few tokens unless `changes` say otherwise."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "seed": 1} | changes
        return self.post("/v1/chat/completions", body, headers)

    def health(self) -> dict[str, Any]:
        """What `/health` says."""
        table: dict[str, Any] = self.get("/health").raise_for_status().json()
        return table

    def idle(self) -> None:
        """Waits until nothing runs and nothing waits."""
        wait_until(lambda: not self.health()["running"] and not self.health()["queued"], "nothing runs and nothing waits")

    def move(self, seconds: float) -> None:
        """Moves its clock on, where it has one by hand."""
        said = self.home.root / "move"
        said.with_suffix(".new").write_text(str(seconds))
        said.with_suffix(".new").rename(said)
        wait_until(lambda: not said.exists(), "the clock has moved")

    def answers(self) -> list[Row]:
        """All facts of answers in its ledger, the oldest first."""
        return facts_in(self.home, "answer")

    def facts(self, kind: str) -> list[Row]:
        """All facts of a kind in its ledger, the oldest first."""
        return facts_in(self.home, kind)

    @property
    def log(self) -> str:
        """What it has said on standard error so far."""
        return "".join(self._log)

    def stop(self, number: int = signal.SIGTERM, within_s: float = PATIENCE_S) -> int:
        """Tells it to stop, waits, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._close()
        return code

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for client in self._clients.values():
            client.close()
        if self._reader is not None:
            self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def start(home: Path, *options: str, before: str = "", changes: Mapping[str, str] | None = None) -> Server:
    """Starts `ingle serve` in a home and waits until it answers. `before`: Python that its process runs first, to shorten a patience."""
    process = launch(home, *options, before=before, changes=changes)
    assert process.stdout is not None
    said = process.stdout.readline().decode()
    if not said.startswith("Ingle is at http://"):
        _, complaint = process.communicate(timeout=PATIENCE_S)
        raise AssertionError(f"the server did not come up: {said!r}, {complaint.decode()!r}")
    server = Server(process, Home(home, (changes or {}).get("INGLE_DATABASE_URL", "")), said)
    server._reader = threading.Thread(target=_read, args=(process, server._log), daemon=True)
    server._reader.start()
    wait_until(lambda: _answers(server), "the server answers")
    return server


def launch(home: Path, *options: str, before: str = "", changes: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """The process alone. It has no learner unless the options say so: it would learn while other tests are timed."""
    quiet = ("--no-open", "--no-page", "--port", "0", "--set", "learn.worker=false")
    command = [sys.executable, "-c", f"{before}\n{MAIN}", "serve", *quiet, *options]
    process = subprocess.Popen(
        command, env=environment(home, changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=os.sep
    )
    _launched.append(process)
    return process


_launched: "list[subprocess.Popen[bytes]]" = []


def end_all() -> None:
    """Kills every server that still runs: those of tests that failed, or were interrupted."""
    while _launched:
        if (process := _launched.pop()).poll() is None:
            process.kill()
            process.wait()


@contextmanager
def serving(home: Path, *options: str, before: str = "", changes: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = start(home, *options, before=before, changes=changes)
    try:
        yield server
    finally:
        server.stop()


def settings(**values: object) -> list[str]:
    """`--set serve.NAME=VALUE` for each."""
    return [word for name, value in values.items() for word in ("--set", f"serve.{name}={json.dumps(value)}")]


def write_long_model(folder: Path) -> Path:
    """The tiny model, with a context in which long answers fit."""
    write_model(folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": CONTEXT}))
    return folder


def facts_in(home: Home, kind: str) -> list[Row]:
    """All facts of a kind in a home's ledger, the oldest first."""
    from ingle.app.house import open_rooms
    from ingle.ledger.chain import Ledger

    engine = open_rooms(home)
    try:
        return list(Ledger(engine, home.keys).read(kind=kind))[::-1]
    finally:
        engine.dispose()


def events_of(response: httpx.Response) -> list[int]:
    """The numbers in the ledger that a whole answer names."""
    numbers: list[int] = response.json()["ingle"]["events"]
    return numbers


def memory(server: Server, most: bool = False) -> int:
    """Bytes that its process holds, or the most that it has held."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:" if most else "VmRSS:"))


def dial(server: Server, timeout_s: float = PATIENCE_S) -> socket.socket:
    """A plain connection."""
    return socket.create_connection(server.address, timeout_s)


def head(server: Server, path: str = "/v1/chat/completions", method: str = "POST", headers: Sequence[str] = ()) -> bytes:
    """The head of a request as it goes over the wire, without the empty line that ends it."""
    host, port = server.address
    named = [line.partition(":")[0].lower() for line in headers]
    lines = [f"{method} {path} HTTP/1.1", *([] if "host" in named else [f"Host: {host}:{port}"]), *headers]
    return "".join(f"{line}\r\n" for line in lines).encode()


def request(server: Server, body: bytes, path: str = "/v1/chat/completions", headers: Sequence[str] = ()) -> bytes:
    """A whole request as it goes over the wire."""
    return head(server, path, "POST", ["Content-Type: application/json", f"Content-Length: {len(body)}", *headers]) + b"\r\n" + body


def answer_on(wire: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (in small letters) and body of the next answer on a connection; the body of one that ends with the connection too."""
    reader = wire.makefile("rb")
    status = int(reader.readline().split()[1])
    headers = {}
    while line := reader.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, reader.read(int(headers["content-length"])) if "content-length" in headers else reader.read()


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of a response, which must have OpenAI's shape and nothing beside it."""
    table = response.json()
    assert set(table) == {"error"}, table
    newer = {"newer"} if response.status_code == 409 else set()  # what it is now, where somebody else has changed it
    assert set(table["error"]) - newer == {"message", "type", "param", "code"}, table
    assert isinstance(table["error"]["message"], str) and table["error"]["message"], table
    found: dict[str, Any] = table["error"]
    return found


def _read(process: "subprocess.Popen[bytes]", log: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        log.append(line.decode(errors="replace"))


def _answers(server: Server) -> bool:
    assert server.process.poll() is None, f"the server ended: {server.log}"
    try:
        return server.get("/health").status_code == 200
    except httpx.TransportError:
        return False
