"""Starts and stops the HTTP server. At a stop, streams end cleanly, facts are written and states are saved."""

import asyncio
import errno
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingle.app.settings import ServeSettings
from ingle.core.errors import ServeError
from ingle.serve.app import Mount, make_app
from ingle.serve.logs import log_everything
from ingle.serve.service import Service

HEAD_S = 15.0  # longest time for the head of a request, so that a slow client can't hold a connection
# Largest head, which is held in memory. A read of 256 kB may also hold the end of the body before it.
HEAD_BYTES = 320 << 10
_BACKLOG = 512  # connections that wait to be accepted
# Python's switch interval. With the default of 5 ms, opening a model delayed every token by some 50 ms, for a token passes through four
# threads on its way to the client.
_TURN_S = 0.0005
_FILES = 16_384  # most files and connections open at once


def listen(settings: ServeSettings) -> socket.socket:
    """Return a bound socket. Done before anything slow, so that a port in use is reported at once. Raises ServeError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        bound.listen(_BACKLOG)  # until somebody does, the system lets others bind it too
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            cure = f"Choose another: ingle serve --port {settings.port + 1}"
            raise ServeError("serve.port", f"Port {settings.port} is in use, maybe by another `ingle serve`", "", cure) from error
        cures = {
            errno.EACCES: "Ports below 1024 belong to the system: choose one above.",
            errno.EADDRNOTAVAIL: "This machine has no such address; 127.0.0.1 is always there.",
        }
        rule = f"The server can't listen at {settings.host}:{settings.port}"
        raise ServeError("serve.host", rule, error.strerror or error, cures.get(error.errno or 0, "Choose another address.")) from error
    return bound


def address(bound: socket.socket) -> str:
    """Return the server's address for a browser."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(service: Service, bound: socket.socket, mount: Mount | None = None) -> bool:
    """Serve the API and the routes of `mount` until SIGINT or SIGTERM. Returns whether it had started. Closes the socket."""
    # No compression on WebSockets: a read may hold megabytes of zeros a thousand times over, and everybody waits until all are unpacked.
    config = uvicorn.Config(
        make_app(service, mount), http=Patient, log_config=None, access_log=False, server_header=False, backlog=_BACKLOG, lifespan="on",
        timeout_graceful_shutdown=int(service.settings.grace_s) + 5, timeout_keep_alive=75,
        ws_per_message_deflate=False,
    )  # fmt: skip
    server = Server(config, service)
    _allow_connections()
    log_everything()
    sys.setswitchinterval(_TURN_S)
    with bound:
        server.run([bound])
    return server.started


def _allow_connections() -> None:
    """Raise the limit of open files. It is often 1,024, and so many silent clients would shut out all others."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


class Server(uvicorn.Server):
    """A uvicorn server that ends answers before it waits for their connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; a second signal ends it at once. Unlike with uvicorn, the process then exits with code 0."""
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
    """Uvicorn's protocol with a time limit for heads: without it, a client that sends a byte a minute holds a connection for ever."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Starts the timer at a new connection."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of a head, and refuses one that is too large."""
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Starts the timer at a request's first byte."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Stops the timer. Bodies have their own limit (serve/gateway.py)."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer at the end of the connection."""
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
