"""A child: a process that works for this one, ends when this one ends, and is started again when it dies."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError, FederatedError, fault_of
from ingle.core.files import how_to_install, installed, os_errors
from ingle.federated.flower.frames import read_frame, write_frame

# Head, bytes → says it to the child. What is said while none is up is lost: who hears `died` says it again.
Tell = Callable[..., None]
# Hears what a child says, and two heads more: `died`, and `failed` with a fault when it won't be started again.
Hear = Callable[[Mapping[str, Any], bytes], object]
FLOWER = "1.42."  # the children use what Flower doesn't promise to keep from one minor version to the next
LOG = "log.txt"
# How often a child may end by itself without a word, before no other is tried. Who is killed doesn't count.
MOST_ENDS = 5
STARTS_WITH = [sys.executable, "-m"]


@contextmanager
def child(module: str, folder: Path, config: Mapping[str, Any], hear: Hear) -> Iterator[Tell]:
    """Run a module as a child, which is told `config` first, until the block ends. `hear` is called from a thread of its own.

    Raises ConfigError without Flower, HomeError if its folder can't be made.
    """
    if not (version := installed("flwr")).startswith(FLOWER):
        rule = f"Homes meet over Flower {FLOWER}x, which is not installed"
        raise ConfigError("flower", rule, version, how_to_install("federate"))
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = _Keeper(module, folder, config, hear)
    thread = threading.Thread(target=keeper.keep, daemon=True, name=module)
    thread.start()
    try:
        yield keeper.tell
    finally:
        keeper.end()
        thread.join(10)


class _Keeper:
    def __init__(self, module: str, folder: Path, config: Mapping[str, Any], hear: Hear) -> None:
        self.command, self.folder, self.config, self.hear = [*STARTS_WITH, module], folder, config, hear
        self.process: subprocess.Popen[bytes] | None = None
        self.lock, self.ending = threading.Lock(), threading.Event()

    def keep(self) -> None:
        ends = 0
        while not self.ending.is_set() and ends < MOST_ENDS:
            said, code = self._one()
            if said == "failed":
                return
            ends = 0 if said or code < 0 else ends + 1
            self.hear({"kind": "died"}, b"")
            self.ending.wait(0.2 * 2**ends)
        if not self.ending.is_set():
            fault = FederatedError("flower", f"{self.command[-1]} ended {ends} times", _last_line(self.folder), "Its log says more.")
            self.hear({"kind": "failed", "fault": fault_of(fault)}, b"")

    def _one(self) -> tuple[str, int]:
        """Run one child to its end. Returns the kind of the last thing that it said, and its exit code."""
        with (self.folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(self.folder),
                start_new_session=True,  # Ctrl-C is for us: we end it
            )  # fmt: skip
        said = ""
        with process, self._told(process):
            assert process.stdout is not None
            self.tell(self.config)
            while (frame := read_frame(process.stdout)) is not None:
                said = frame[0]["kind"]
                self.hear(*frame)
        return said, process.returncode

    @contextmanager
    def _told(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """While the block lasts, this is whom `tell` tells."""
        with self.lock:
            self.process = process
            if self.ending.is_set():
                process.kill()
        try:
            yield
        finally:
            with self.lock:
                self.process = None
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]

    def tell(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        with self.lock:
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError, ValueError):  # it died: the thread that reads finds out
                    write_frame(self.process.stdin, head, body)

    def end(self) -> None:
        self.ending.set()
        with self.lock:
            process, self.process = self.process, None
            if process is None or process.stdin is None:
                return
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()


_KEPT = {"PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "TEMP", "TMP"}


def _environment(folder: Path) -> dict[str, str]:
    """Return what a child sees of ours: no proxies, and Flower reports to nobody, asks for no update and writes into its own folder."""
    ours = {name: value for name, value in os.environ.items() if name in _KEPT}
    return ours | {
        "HOME": str(folder), "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "MALLOC_ARENA_MAX": "2",  # large letters go through many threads, each of which would keep its own memory
    }  # fmt: skip


def _last_line(folder: Path) -> str:
    lines = (folder / LOG).read_text("utf-8", "replace").splitlines() if (folder / LOG).exists() else []
    return lines[-1][:300] if lines else f"{folder / LOG} is empty"
