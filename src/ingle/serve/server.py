"""Listening, and stopping: streams finish or end cleanly, facts are written, states are saved."""

import asyncio
import errno
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingle.core.errors import ServeError
from ingle.serve.app import Mount, make_app
from ingle.serve.service import Service
from ingle.serve.settings import ServeSettings

HEAD_S = 15.0
"""Longest that the head of a request may take to come: who sends a byte now and then holds nothing."""
HEAD_BYTES = 320 << 10
"""Largest head. The protocol keeps all of it; a read of 256 kB may also hold the end of the body before it."""
_BACKLOG = 512
"""Connections that wait to be accepted."""
_TURN_S = 0.0005
"""Longest that a thread which works in Python holds up another. With Python's own 5 ms, a model that is being opened cost every token
some 50 ms: on its way to the client it is in the hands of four threads."""
_FILES = 16_384
"""Files and connections that may be open at once."""


def listen(settings: ServeSettings) -> socket.socket:
    """A socket that is bound; before anything slow is done, so that a port in use is told at once. Raises ServeError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
        made.listen(_BACKLOG)  # until somebody does, the system lets others bind it too
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            cure = f"Choose another: ingle serve --port {settings.port + 1}"
            raise ServeError("serve.port", f"Port {settings.port} is in use, maybe by another `ingle serve`", "", cure) from error
        cures = {
            errno.EACCES: "Ports below 1024 belong to the system: choose one above.",
            errno.EADDRNOTAVAIL: "This machine has no such address; 127.0.0.1 is always there.",
        }
        rule = f"The server can't listen at {settings.host}:{settings.port}"
        raise ServeError("serve.host", rule, error.strerror or error, cures.get(error.errno or 0, "Choose another address.")) from error
    return made


def address(bound: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, bound: socket.socket, mount: Mount | None = None) -> bool:
    """Serves the API, and what `mount` adds, until SIGINT or SIGTERM. Returns whether it had come up. Closes the socket."""
    config = uvicorn.Config(
        make_app(service, mount), http=Patient, log_config=None, access_log=False, server_header=False, backlog=_BACKLOG, lifespan="on",
        timeout_graceful_shutdown=int(service.settings.grace_s) + 5, timeout_keep_alive=75,
    )  # fmt: skip
    server = Server(config, service)
    _allow_connections()
    sys.setswitchinterval(_TURN_S)
    with bound:
        server.run([bound])
    return server.started


def _allow_connections() -> None:
    """As many open files as we may have, within reason: often it is 1,024, and so many silent clients would shut out all others."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Server(uvicorn.Server):
    """Uvicorn, which ends answers before it waits for their connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; a second signal doesn't wait for anybody. Unlike uvicorn's, the process then ends by itself, with code 0."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening, lets answers finish, then closes everything."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        draining = asyncio.ensure_future(self._service.drain())
        while not draining.done():
            await asyncio.wait({draining}, timeout=0.1)
            if self.force_exit:
                await self._service.drain(0.0)
        await draining
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn then leaves this out, and facts would wait for ever
            await self.lifespan.shutdown()


class Patient(HttpToolsProtocol):
    """Uvicorn's protocol, with an end to its patience: without one, a client that sends a byte a minute holds a connection for ever."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Somebody has connected."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """The first byte of a request, maybe of a later one on this connection."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """The head is whole; bodies have a limit of their own (serve/gateway.py)."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
