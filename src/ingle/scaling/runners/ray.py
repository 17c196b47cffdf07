"""Other machines, by Ray: one task a job, one core each.

A task starts the same worker as on this machine, and hands on its messages. Where the node sees the sweep's own folder, it uses text and
checkpoints there; else the text travels, and checkpoints lie in the node's temporary folder. Weights never travel.

Without an address, a cluster of this machine alone is started, on loopback, and shut down in the end. Ray itself sends calls and results as
pickles, and what reaches its ports can run anything: loopback, a private network or a VPN only.
"""

import os
import platform
import queue
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, Interrupted, fault_of
from ingle.core.files import how_to_install, os_errors, write_atomic
from ingle.core.process import usable_cores
from ingle.scaling.dealing import LAST, LOOK_S, PATIENCE_S, Hear, Job, Messages, WorkerProcess, deal
from ingle.scratch.text_sources import FILES
from ingle.train.making import TrainError

WORDS = "on a Ray cluster, one task a core"
MARK = "driver.txt"  # file in the work folder by which a node knows that it sees the very same folder
_STORE_BYTES = 100 << 20
_KNOCK_S = 5.0
_FREE_S = 30.0
Message = tuple[dict[str, Any] | None, bytes]


# For all tasks of one text: the mark, each file's digest, and a reference to the files, which travel only where they are asked for.
Shared = tuple[str, dict[str, str], tuple[Any, ...]]


def run_jobs(jobs: Sequence[Job], workers: int, hear: Hear, stopped: Callable[[], bool], address: str = "") -> None:
    """Do all jobs on the cluster at HOST:PORT, so many at a time; 0 = as many as it has cores. Without an address, on this machine.

    Raises the first fault of a job, and Interrupted when `stopped` says so; ConfigError without Ray, without a cluster or a free core, and
    where a node has another Ingle.
    """
    with _cluster(address, workers or usable_cores()) as ray:
        _wait_for_core(ray, address, stopped)
        versions, at_node = _travelling()
        remote = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(at_node)
        with _marks(jobs) as mark:
            shared = {folder: _shared(ray, folder, mark) for folder in {job["prepared"] for job in jobs}}

            def begin(number: int, job: Job, messages: Messages) -> _Task:
                return _Task(ray, remote.remote(job, versions(), shared[job["prepared"]]), number, messages)

            deal(jobs, workers or len(jobs), begin, hear, stopped)


def do(job: Job, shared: Shared) -> Iterator[Message]:
    """Do a job on this node, and give its messages as they come; the last is None where the worker was lost."""
    with _here(job, shared) as found:
        messages: Messages = queue.Queue()
        worker = WorkerProcess(0, found, messages)
        kind, patience_s = "", PATIENCE_S
        try:
            while kind not in LAST:
                try:
                    _, header, data = messages.get(timeout=LOOK_S)
                except queue.Empty:
                    continue
                kind = header["kind"] if header else LAST[0]
                yield header, data
            patience_s = 0.0
        finally:
            worker.ask()
            worker.end(patience_s)


class _Task:
    """A Ray task, and the thread that reads its messages. Ray must not repeat it: a second course has other messages than the first."""

    def __init__(self, ray: Any, messages_of: Any, number: int, messages: Messages) -> None:
        self._ray, self._messages_of = ray, messages_of
        self._thread = threading.Thread(target=self._read, args=(number, messages), daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Ask it to write a checkpoint and end."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.cancel(self._messages_of, force=False)

    def end(self, patience_s: float = 0.0) -> None:
        """Wait for its end. After its last message it only tidies up."""
        self._thread.join(max(patience_s, _KNOCK_S))

    def _read(self, number: int, messages: Messages) -> None:
        """Hand on messages up to the last one: what comes behind it, a node's end above all, is not the job's."""
        ended = False

        def hand_on(header: dict[str, Any] | None, data: bytes = b"") -> None:
            nonlocal ended
            if not ended:
                messages.put((number, header, data))
                ended = header is None or header["kind"] in LAST

        errors = self._ray.exceptions
        try:
            for reference in self._messages_of:
                header, data = self._ray.get(reference)
                hand_on(_fault(_another_version(header)) if header and header["kind"] == "versions" else header, data)
        except errors.RayTaskError as error:
            cause = str(error.cause)[:300]
            hand_on(_fault(TrainError("a run on another machine", "failed", cause, "Run the same command to try again.")))
        except errors.RayError:  # the node, its worker or its memory is gone
            pass
        hand_on(None)


def _travelling() -> tuple[Callable[[], dict[str, str]], Callable[..., Iterator[Message]]]:
    """Two functions that Ray sends as they are, not by their names: a node with another Ingle, or with none, must be able to say so."""

    def versions() -> dict[str, str]:
        from importlib import metadata

        found = dict[str, str]()
        for name, package in (("Ingle", "ingle"), ("PyTorch", "torch")):
            try:
                found[name] = metadata.version(package).partition("+")[0]
            except metadata.PackageNotFoundError:
                found[name] = "none"
        with suppress(ImportError):
            found["Ingle"] = import_module("ingle").__version__
        return found

    def at_node(job: Job, ours: dict[str, str], shared: Shared) -> Iterator[Message]:
        theirs = versions()
        if theirs != ours:
            yield {"kind": "versions", "node": platform.node(), "ours": ours, "theirs": theirs}, b""
        else:
            yield from import_module("ingle.scaling.runners.ray").do(job, shared)

    return versions, at_node


def _another_version(header: Mapping[str, Any]) -> ConfigError:
    ours, theirs = header["ours"], header["theirs"]
    [name, *_] = [name for name in ours if theirs[name] != ours[name]]
    rule = f"has {name} {theirs[name]}, and this machine has {ours[name]}" if theirs[name] != "none" else f"has no {name}"
    return ConfigError(f"the node {header['node']}", rule, "", f"Install {name} {ours[name]} there; then run the same command again.")


def _fault(error: Any) -> dict[str, Any]:
    return {"kind": "fault", "fault": fault_of(error)}


@contextmanager
def _cluster(address: str, count: int) -> Iterator[Any]:
    """Ray, connected to a cluster."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not address:
        stay_on_loopback()
    if find_spec("ray") is None:
        raise ConfigError("Ray", "Sweeps on other machines need Ray, which is not installed", "", how_to_install("sweep"))
    if address:
        _knock(address)
    ray = import_module("ray")
    handler = signal.getsignal(signal.SIGTERM)
    short = "/tmp" if os.name == "posix" else None  # names of sockets may have 103 characters
    with tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True) as folder:
        own = {"num_cpus": count, "include_dashboard": False, "object_store_memory": _STORE_BYTES, "_temp_dir": folder}
        where = {"address": address} if address else own
        try:
            ray.init(**where, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray raises that very class, too: on a busy machine a node must start within 30 s
            cure = "This machine must be a node of it, with the same Ray and Python, and have its token: ray start --address=HOST:PORT"
            what, cure = (address, cure) if address else ("A cluster on this machine", "Try again when the machine is less busy.")
            raise ConfigError(what, "can't be joined", str(error).partition("\n")[0][:300], cure) from error
        try:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place
            yield ray
        finally:
            ray.shutdown()


def stay_on_loopback() -> None:
    """Keep clusters that this process starts on loopback, with a token of their own. Ray reads these variables when it is imported."""
    for name, value in (("AUTH_MODE", "token"), ("AUTH_TOKEN", secrets.token_hex(32)), ("ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")):
        os.environ.setdefault(f"RAY_{name}", value)


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError("the cluster's address", "must be HOST:PORT", address, "For example 127.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), _KNOCK_S).close()
    except OSError as error:
        cure = f"Start one on that machine: ray start --head --port={port}. Ray's ports are for loopback, a private network or a VPN only."
        raise ConfigError(address, "No Ray cluster answers there", error, cure) from error


def _wait_for_core(ray: Any, address: str, stopped: Callable[[], bool]) -> None:
    """Wait a little for what was killed to let go of its core."""
    has = int(ray.cluster_resources().get("CPU", 0))
    if has < 1:
        raise ConfigError(address, "is a cluster without a core", "", "Let a machine with cores join it: ray start --address=HOST:PORT")
    until = time.monotonic() + _FREE_S
    while ray.available_resources().get("CPU", 0) < 1:
        if stopped():
            raise Interrupted("the sweep", "was interrupted", "", "Run the same command to go on.")
        if time.monotonic() > until:
            raise ConfigError(address, "has no free core", f"{has} in use", "Wait until others are done, or add a machine to the cluster.")
        time.sleep(LOOK_S)


@contextmanager
def _marks(jobs: Sequence[Job]) -> Iterator[str]:
    """A mark in each work folder, until the end."""
    mark, works = secrets.token_hex(16), {Path(job["work"]) for job in jobs if "work" in job}
    for work in works:
        with os_errors(work):
            work.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(work / MARK, mark.encode())
    try:
        yield mark
    finally:
        for work in works:
            (work / MARK).unlink(missing_ok=True)


def _shared(ray: Any, folder: str, mark: str) -> Shared:
    with os_errors(Path(folder)):
        texts = {name: (Path(folder) / name).read_bytes() for name in FILES}
    return mark, {name: digest_bytes(data) for name, data in texts.items()}, (ray.put(texts),)


@contextmanager
def _here(job: Job, shared: Shared) -> Iterator[Job]:
    """The job with folders that this node sees."""
    mark, digests, [texts] = shared
    if _sees(job, mark):
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="ingle-text-") as folder:
        for name, data in import_module("ray").get(texts).items():
            if digest_bytes(data) != digests[name]:
                raise ConnectionError(f"{name} arrived damaged")
            write_atomic(Path(folder) / name, data)
        yield {**job, "prepared": folder, "work": str(_work_here())}


def _sees(job: Job, mark: str) -> bool:
    with suppress(OSError, KeyError):
        return (Path(job["work"]) / MARK).read_text() == mark
    return False


def _work_here() -> Path:
    """Folder of this user for checkpoints, which the next task on this node goes on from."""
    folder = Path(tempfile.gettempdir()) / f"ingle-sweep-{os.getuid() if hasattr(os, 'getuid') else 0}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink()):
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
