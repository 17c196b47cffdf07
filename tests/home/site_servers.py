"""A small server on this machine that speaks what we need of a hub and of a package index, and can be told to misbehave."""

import base64
import contextlib
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.waiting import for_a_while

REPO = "someone/tiny"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Site:
    """What the server has and how it behaves."""

    address: str = ""
    repo: str = REPO
    """The hub's one repository."""
    commit: str = "a" * 40
    files: dict[str, bytes] = field(default_factory=dict)
    """The hub repository."""
    paths: dict[str, bytes] = field(default_factory=dict)
    """Everything else, by path."""
    cut_after: int | None = None
    """Bytes after which every answer of a file breaks off."""
    honours_ranges: bool = True
    sized: bool = True
    """Whether answers say how long they are."""
    status: int | None = None
    """Answers every file with this."""
    slow_s: float = 0.0
    """Pause between blocks of 64 KiB."""
    stall_after: int | None = None
    """Bytes after which every answer of a file waits until this is None again."""
    password: str = ""
    """user:password that every request must show."""
    claimed: dict[str, str] = field(default_factory=dict)
    """SHA-256 that the hub states, where it isn't the true one."""
    sent: int = 0
    """Bytes of files sent."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def fetched(self, path: str) -> list[dict[str, str]]:
        return [headers for asked, headers in self.requests if asked.endswith(path)]


class Handler(BaseHTTPRequestHandler):
    """Answers for the `site` of its server."""

    @property
    def site(self) -> Site:
        assert isinstance(self.server, Server)
        return self.server.site

    def do_GET(self) -> None:
        site, path = self.site, unquote(urlsplit(self.path).path)
        site.requests.append((path, {key.lower(): value for key, value in self.headers.items()}))
        if site.password and self.headers.get("Authorization") != "Basic " + base64.b64encode(site.password.encode()).decode():
            self._send(401, b"", {"WWW-Authenticate": "Basic"})
        elif path.startswith("/api/models/"):
            self._hub(path)
        elif f"/{self.site.repo}/resolve/" in path:
            self._resolve(path)
        elif path.startswith("/storage/"):
            self._file(site.files[path.split("/", 3)[3]])
        elif path in site.paths:
            self._file(site.paths[path])
        else:
            self._send(404, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _hub(self, path: str) -> None:
        site = self.site
        if path.split("/revision/", maxsplit=1)[0] != f"/api/models/{site.repo}":
            self._send(401, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return
        if path.partition("/revision/")[2] not in ("", "main", site.commit):
            self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, data in site.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if name.endswith((".safetensors", ".gguf")):
                entry["lfs"] = {"sha256": site.claimed.get(name, sha256(data)), "size": len(data), "pointerSize": 1}
            siblings.append(entry)
        answer = {"id": site.repo, "sha": site.commit, "siblings": siblings, "tags": ["license:mit"], "private": False, "downloads": 0}
        self._send(200, json.dumps(answer).encode())

    def _resolve(self, path: str) -> None:
        commit, _, name = path.partition(f"/{self.site.repo}/resolve/")[2].partition("/")
        if commit != self.site.commit or name not in self.site.files:
            self._send(404, b"")
            return
        # As the real one does it: the bytes are at another host.
        elsewhere = self.site.address.replace("127.0.0.1", "localhost")
        self._send(302, b"", {"Location": f"{elsewhere}/storage/{commit}/{name}"})

    def _file(self, data: bytes) -> None:
        site, asked = self.site, self.headers.get("Range")
        if site.status is not None and not self.path.startswith("/simple"):
            self._send(site.status, b"")
            return
        start, stop = 0, len(data)
        if asked and site.honours_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            if start >= len(data):
                self._send(416, b"")
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        else:
            self.send_response(200)
        body = data[start:stop]
        if site.sized:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes" if site.honours_ranges else "none")
        self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/octet-stream")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[: site.cut_after] if site.cut_after is not None and not self.path.startswith("/simple") else body
        for at in range(0, len(body), 65536):
            while site.stall_after is not None and at >= site.stall_after:
                for_a_while(0.01)
            self.wfile.write(body[at : at + 65536])
            site.sent += len(body[at : at + 65536])
            if site.slow_s:
                for_a_while(site.slow_s)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json" if self.path.startswith("/api/") else "text/html")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the other side was killed, which is what some tests are about
            super().handle()

    def log_message(self, format: str, *args: object) -> None: ...


class Server(ThreadingHTTPServer):
    """One site on a free port."""

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.site = site
        site.address = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """`site`, reachable at its address within the block."""
    with Server(site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def make_index(site: Site, wheel: str, data: bytes, package: str, with_metadata: bool = True) -> str:
    """Puts a wheel into a package index at the site; returns the address of the index."""
    url = f"{site.address}/packages/{wheel}"
    attribute = ' data-core-metadata="true"' if with_metadata else ""
    site.paths[f"/simple/{package}/"] = f'<html><body><a href="{url}"{attribute}>{wheel}</a></body></html>'.encode()
    site.paths[f"/packages/{wheel}"] = data
    if with_metadata:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
            site.paths[f"/packages/{wheel}.metadata"] = archive.read(name)
    return f"{site.address}/simple"


def make_wheel(package: str, version: str, files: dict[str, bytes]) -> tuple[str, bytes]:
    """(file name, bytes) of a wheel with these files in it, and a dependency that nobody has."""
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Dist: does-not-exist-anywhere-at-all\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{module}-{version}-py3-none-any.whl", buffer.getvalue()
