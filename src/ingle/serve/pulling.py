"""Pulls models beside the server: one at a time, each in a process of its own, as `ingle pull` does it (cli/attached.py).

Only names of the catalogue are pulled. The process ends with the server; what has arrived is kept for the next attempt.
"""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from ingle.core.errors import Busy, NotKept, PullError, RequestError
from ingle.engine.bandwidth import ModelOffer, check_room, offers, read_bandwidth
from ingle.home.catalogue import close_names, known_names, parts_called
from ingle.home.place import Home
from ingle.serve.logs import log

COMMAND = (sys.executable, "-P", "-m", "ingle", "pull")
_PATIENCE_S = 10.0  # time that a process has to end before it is killed
_MOST_LINE = 1 << 16
STOPPED = "Stopped. What has arrived is kept; pulling again goes on there."


@dataclass(frozen=True, slots=True)
class PullState:
    """How far a pull is, or how it ended."""

    name: str = ""  # the model, or the parts; "" = nothing has been pulled since the server began
    state: str = "none"  # none, running, done, failed, stopped
    label: str = ""  # the present work
    done: int = 0
    total: int | None = None  # none = unknown
    unit: str = "bytes"  # bytes, or pieces
    seconds_left: float | None = None  # of the present work; None = unknown
    kept: str = ""  # the name by which the model is kept, or that of the parts, when it is done
    note: str = ""  # a side remark, or the error

    def table(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Puller:
    """The pulls of one server. Belongs to its event loop."""

    def __init__(self, home: Home, only: Sequence[str], running: Callable[[], int]) -> None:
        """`only`: the models that the server offers; empty = all, and then more may come. `running`: how many answers are being written."""
        self._home, self._only, self._running = home, tuple(only), running
        self.state = PullState()
        self.changed: list[Callable[[], None]] = []  # called whenever the state changes
        self._process: Process | None = None
        self._meter: Process | None = None
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._began: tuple[str, float, int] = ("", 0.0, 0)
        self._last: dict[str, str] = {}  # the last line of the process
        self._closed = self._measured = False

    async def offers(self) -> list[ModelOffer]:
        """Return what is known, with the speed where this machine was measured. Raises HomeError."""
        return await asyncio.to_thread(lambda: offers(self._home, read_bandwidth(self._home)))

    async def start(self, name: str, force: bool = False, lean: bool | None = None) -> PullState:
        """Begin to pull a model of the catalogue, or parts. `lean`: see `ingle lean`; None = as the home's settings say.

        One that was stopped is waited for.
        Raises NotKept for any other name, Busy while one is being pulled, RequestError if this server offers only some models, or there
        is no room.
        """
        if name not in known_names() and not parts_called(name):
            close = close_names(name[:100])
            cure = f"Did you mean {' or '.join(close)}?" if close else "GET /v1/catalogue lists them."
            raise NotKept("name", f"The catalogue has no model {name[:100]!r}", "", cure)
        if self._only:
            cure = "Start it without names (`ingle serve`) to pull more here, or pull at its machine."
            raise RequestError("name", f"This server offers only {', '.join(self._only)}", "", cure)
        self._refuse_second()
        if self._task is not None:
            await asyncio.wait({self._task})
        try:
            await asyncio.to_thread(check_room, self._home, name, force)
        except PullError as error:  # the request can't be met here, and the server is well
            raise RequestError(error.field, error.rule, error.got, error.cure) from error
        self._refuse_second()  # another may have come meanwhile
        self._last = {}
        self._show(PullState(name, "running", "starting"))
        flags = [*(["--force"] if force else []), *([] if lean is None else ["--lean" if lean else "--no-lean"])]
        self._task = asyncio.create_task(self._run(name, flags))
        return self.state

    async def stop(self) -> PullState:
        """End the pull, if there is one, and wait for that. What has arrived is kept for the next attempt."""
        if self._task is not None and self.state.state == "running":
            self._show(replace(self.state, state="stopped", label="", note=STOPPED))
            await self._end()
        if self._task is not None:
            await asyncio.wait({self._task})
        return self.state

    @property
    def measuring(self) -> bool:
        """Whether the machine's speed is being measured now."""
        return self._meter is not None

    @property
    def will_measure(self) -> bool:
        """Whether the machine's speed is being measured, or is about to be."""
        return self._measuring is not None and not self._measuring.done()

    def measure(self, after_s: float = 0.0) -> None:
        """Have this machine's speed measured, unless it was: after so many seconds, when no answer is being written, in another process."""
        if after_s <= 0:
            self._hurry.set()
        if (self._measuring is None or self._measuring.done()) and not self._closed and self._unmeasured():
            self._measuring = asyncio.create_task(self._measure(after_s))

    def _unmeasured(self) -> bool:
        """Return whether this machine was never measured, or only beside other programs and not yet by this server."""
        known = read_bandwidth(self._home)
        return known is None or (known.provisional and not self._measured)

    async def close(self) -> None:
        """End whatever runs."""
        self._closed = True
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})
        await self.stop()

    def _refuse_second(self) -> None:
        if self.state.state == "running":
            raise Busy("name", f"{self.state.name} is being pulled, and one is pulled at a time", "", "Wait for it, or stop it.", 10.0)

    async def _run(self, name: str, flags: Sequence[str]) -> None:
        said, code = "", 1
        try:
            words = [*COMMAND, name, "--attached", *flags]
            self._process = process = await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self._environment, limit=_MOST_LINE
            )
            assert process.stdout is not None and process.stderr is not None
            if self.state.state == "stopped":  # while it was being started
                await self._end()
            errors, _ = await asyncio.gather(process.stderr.read(), self._follow(process.stdout))
            said, code = errors.decode("utf-8", "replace").strip(), await process.wait()
        except (OSError, ValueError) as error:  # no more processes; a line without an end
            said = str(error)
        finally:
            await self._end()
            self._process = None
            self._over(name, said, code)

    def _over(self, name: str, said: str, code: int) -> None:
        """Show how a pull ended. `said`: what its process wrote on standard error; `code`: its exit code."""
        if code == 0 and "kept" in self._last:  # though it may have been told to stop, a moment too late
            self._show(PullState(name, "done", kept=self._last["kept"]))
        elif self.state.state == "running":
            words = said.splitlines()[-1:] or [f"It ended with code {code}."]
            self._show(PullState(name, "failed", note=self._last.get("error", words[0][:500])))
        fault = {"fault": self.state.note} if self.state.state == "failed" else {}
        log("pull", {"model": name, "outcome": self.state.state, **fault})

    async def _follow(self, lines: asyncio.StreamReader) -> None:
        """Take the process's lines into the state."""
        while line := await lines.readline():
            with suppress(ValueError):
                if isinstance(table := json.loads(line), dict):
                    self._take(table)

    def _take(self, table: dict[str, Any]) -> None:
        if "error" in table or "kept" in table:  # its last line; the state changes when the process has ended
            self._last = {key: str(table[key]) for key in ("error", "kept") if key in table}
        elif self.state.state != "running":
            return
        elif "note" in table:
            self._show(replace(self.state, note=str(table["note"])))
        elif "label" in table:
            label, done, total = str(table["label"]), int(table["done"]), table["total"]
            total = None if total is None else int(total)
            unit, left = str(table["unit"]), self._left(label, done, total)
            self._show(replace(self.state, label=label, done=done, total=total, unit=unit, seconds_left=left))

    def _left(self, label: str, done: int, total: int | None) -> float | None:
        """Return the seconds that the present work still takes, by its pace so far."""
        began, since, before = self._began
        if label != began or done < before:
            self._began = label, time.monotonic(), done
            return None
        passed = time.monotonic() - since
        return (total - done) * passed / (done - before) if total and done > before and passed > 1 else None

    async def _measure(self, after_s: float) -> None:
        """Have the list made once: it measures, and keeps what it measured in the home."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), after_s)
        while self._running():
            await asyncio.sleep(1)
        try:
            self._meter = meter = await asyncio.create_subprocess_exec(
                *COMMAND, "--json", stdout=DEVNULL, stderr=PIPE, env=self._environment
            )
            self._tell()
            _, said = await meter.communicate()
            self._measured = True
            if meter.returncode:
                log("speed", {"fault": said.decode("utf-8", "replace").strip()[-500:]})
        except OSError as error:
            log("speed", {"fault": str(error)})
        finally:
            begun, self._meter = self._meter, None
            if begun is not None and begun.returncode is None:
                begun.kill()
                await begun.wait()
        self._tell()

    async def _end(self) -> None:
        """Ask the process to end, and kill it if it doesn't."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "INGLE_HOME": str(self._home.root), "INGLE_DATABASE_URL": self._home.other_database}

    def _show(self, state: PullState) -> None:
        self.state = state
        self._tell()

    def _tell(self) -> None:
        for hear in self.changed:
            hear()
