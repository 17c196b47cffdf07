"""What the benchmarks of serving share: our server and llama.cpp's, in processes of their own.

    python bench/servers.py        builds llama.cpp's own server, once (about 10 minutes on two cores)

llama.cpp's server is built from the source that llama-cpp-python's package carries, for this machine's own processor:

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
    cmake -G Ninja -S vendor/llama.cpp -B build (CMAKE below) && cmake --build build --target llama-server

It is then found in ~/.cache/ingle-bench. LLAMA_SERVER may name another one.
(`python -m llama_cpp.server` would be no fair peer: it answers one request at a time.)
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ingle.core.errors import IngleError
from ingle.home.kept import get_kept
from ingle.home.place import Home, find_home
from model import smollm2

LLAMA = "llama-cpp-python==0.3.36"
CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
)  # fmt: skip
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingle-bench" / LLAMA.replace("-", "_").replace("==", "-")


def start_bench(description: str | None, examples: str) -> argparse.ArgumentParser:
    """What all scripts begin with: a parser with examples, and an end by SIGTERM that runs what stands in `finally`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return argparse.ArgumentParser(
        description=description, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def ingle_command() -> str:
    """Our own program, of this environment."""
    return str(Path(sys.executable).parent / "ingle")


def own_home(folder: Path) -> Home:
    """A home for benchmarks, which lasts: the texts and compiled kernels of the real one, and nothing else of it."""
    real, home = find_home(), Home(folder.resolve())
    if real.root == home.root:
        raise SystemExit(f"{folder} is the real home; give a folder for benchmarks")
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(real.jit))
    data, link = real.root / "cache" / "data", home.root / "cache" / "data"
    data.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(data)
    return home.create()


@contextlib.contextmanager
def scratch_home() -> Iterator[Home]:
    """A home for one run, with the real home's `smollm2` in it: no benchmark writes into anybody's ledger."""
    home = find_home()
    try:
        get_kept(home, "smollm2")
    except IngleError:
        say("pulling smollm2 …")
        subprocess.run([ingle_command(), "pull", "smollm2"], check=True, stdout=sys.stderr)
    smollm2()  # names the real home's compiled kernels in the environment, which the servers inherit
    with tempfile.TemporaryDirectory(prefix="ingle-bench-") as folder:
        for part in (home.bases, home.models, home.packs, home.root / "parts"):
            if part.exists():
                shutil.copytree(part, Path(folder) / part.name)
        yield Home(Path(folder)).create()


@dataclass
class Server:
    """A server that listens."""

    name: str
    process: subprocess.Popen[str]
    port: int
    log: IO[str]
    """What it says on standard error."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        """The log so far."""
        self.log.seek(0)
        return self.log.read()

    def rss_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Sends a signal and waits. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode

    def get(self, path: str) -> str:
        """What a GET gives."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            body: bytes = response.read()
        return body.decode()


def start_ingle(home: Home, *options: str) -> Server:
    """Our server over this home, answering. Stop it."""
    environment = {key: value for key, value in os.environ.items() if key != "INGLE_DATABASE_URL"} | {"INGLE_HOME": str(home.root)}
    command = [ingle_command(), "serve", "smollm2", "--no-open", "--no-page", "--port", "0", *options]
    log = tempfile.TemporaryFile("a+")  # noqa: SIM115 - open as long as the server
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True)
    assert process.stdout
    try:
        first = process.stdout.readline()
    except BaseException:
        process.kill()
        raise
    if "Ingle is at http" not in first:
        process.kill()
        raise _no_start(Server("ingle", process, 0, log))
    return _healthy(Server("ingle", process, int(first.split()[3].rsplit(":", 1)[1]), log))


def start_llama(slots: int, context: int, *options: str, threads: int = 2, wait: str = "passive") -> Server:
    """llama.cpp's server on the file of the kept `smollm2`, with `context` tokens for each of its slots, answering. Stop it.

    `wait`: how its threads wait for each other. OpenMP's own way is to spin, which is fine on a machine that does nothing else, and
    several times slower where a client, or anything, wants a core now and then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = ("-np", slots, "-c", slots * context, "-t", threads, "-tb", threads, "--port", port)
    command = [str(find_llama()), "-m", str(smollm2()), "-cb", "--no-webui", *map(str, sizes), *options]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if wait != "spin":
        environment["OMP_WAIT_POLICY"] = wait
    log = tempfile.TemporaryFile("a+")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment, start_new_session=True)
    return _healthy(Server("llama.cpp", process, port, log))


def _healthy(server: Server) -> Server:
    try:
        for _ in range(600):
            if server.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                server.get("/health")
                return server
            time.sleep(0.05)
    except BaseException:
        server.stop(signal.SIGKILL)
        raise
    server.stop(signal.SIGKILL)
    raise _no_start(server)


def _no_start(server: Server) -> SystemExit:
    return SystemExit(f"{server.name} did not start: {server.said()[-2000:]}")


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[Server], Server]]:
    """What is given to the function that this gives is ended, whatever happens."""
    servers: list[Server] = []

    def started(server: Server) -> Server:
        servers.append(server)
        return server

    try:
        yield started
    finally:
        for server in servers:
            server.stop(signal.SIGKILL)


def find_llama() -> Path:
    """llama.cpp's own server; says how to get it if it is not here."""
    for path in (os.environ.get("LLAMA_SERVER"), CACHE / "build" / "bin" / "llama-server", shutil.which("llama-server")):
        if path and Path(path).exists():
            return Path(path)
    raise SystemExit("llama.cpp's server is not here. Build it: python bench/servers.py   (or leave it out: see --help)")


def build_llama() -> Path:
    """Fetches and builds it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ("--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", folder)
        subprocess.run([sys.executable, "-m", "pip", "download", *options, LLAMA], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(CACHE.parent, filter="data")
    build = CACHE / "build"
    subprocess.run(["cmake", "-G", "Ninja", "-S", str(CACHE / "vendor" / "llama.cpp"), "-B", str(build), *CMAKE], check=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "llama-server", "-j", str(os.cpu_count())], check=True)
    return find_llama()


if __name__ == "__main__":
    start_bench(__doc__, "  python bench/servers.py").parse_args()
    print(build_llama())
