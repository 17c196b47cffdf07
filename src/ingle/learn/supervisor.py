"""Supervises the learner process of a server: starts it when there is work, holds it under load, restarts it if it dies, and ends it with
the server. During a lesson the server lends it a core.

It doesn't import PyTorch, so that only the learner's process pays for it.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingle.core.clock import REAL, Clock
from ingle.core.errors import IngleError
from ingle.home.examples import list_examples
from ingle.home.place import Home
from ingle.learn.learning_settings import LearnSettings
from ingle.learn.work import next_work

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Commands to the learner: to wait, to go on beside answers that are being written, and to go on alone.
HOLD, BESIDE, GO = b"hold\n", b"beside\n", b"go\n"
BUSY, IDLE = b"busy\n", b"idle\n"  # messages of the learner: it works at a lesson, or doesn't
_LOOK_S = 0.5
# Bounds of the wait before a restart. Each death in a row doubles it, unless the learner had lived for `_WHILE_S`.
_LEAST_WAIT_S, _MOST_WAIT_S = 1.0, 60.0
_WHILE_S = 20.0
_PATIENCE_S = 5.0  # time that a learner has to end before it is killed


@dataclass
class Supervisor:
    """A thread of the server that supervises the learner. `close` ends both."""

    home: Home
    open_database: Callable[[], "Engine"]
    command: Sequence[str]  # command line of the learner; see learn/worker.py for its protocol
    settings: LearnSettings
    writing: Callable[[], int]  # returns the number of running answers
    lend: Callable[[int], None]  # called with the number of cores that the learner uses now
    say: Callable[[str], None] = lambda _: None
    clock: Clock = REAL
    starts: int = 0  # number of learners that were started
    _process: "subprocess.Popen[bytes] | None" = None
    _told: bytes = GO
    _began: float = 0.0
    _wait_s: float = 0.0
    _not_before: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and the learner. What it was learning is pending for the next one."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._end()

    @property
    def process_id(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def _run(self) -> None:
        engine: Engine | None = None
        while not self._over.wait(_LOOK_S):
            try:
                engine = engine or self.open_database()
                self._look(engine)
            except (IngleError, OSError) as error:  # a busy database, no more processes: it may pass
                self.say(str(error))
                self._back_off()
        if engine is not None:
            engine.dispose()

    def _look(self, engine: "Engine") -> None:
        process = self._process
        if process is not None and process.poll() is not None:
            self._reap(process)
        if self._process is not None:
            writing = self.writing()
            self._tell(HOLD if writing > self.settings.beside else BESIDE if writing else GO)
        elif self.clock.now() >= self._not_before and self.writing() <= self.settings.beside and self._pending(engine):
            environment = {"INGLE_HOME": str(self.home.root), "INGLE_DATABASE_URL": self.home.other_database}
            self._process = process = subprocess.Popen(
                list(self.command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment}
            )
            self.starts, self._told, self._began = self.starts + 1, GO, self.clock.now()
            threading.Thread(target=self._lend, args=(process,), name="lending", daemon=True).start()

    def _pending(self, engine: "Engine") -> bool:
        """Return whether there is anything to learn, or a lesson that was cut short."""
        return next_work(self.home, engine, {}, self.settings.ratings) is not None or bool(
            list_examples(engine, None, ["learning"], limit=1)
        )

    def _lend(self, process: "subprocess.Popen[bytes]") -> None:
        """Reads the messages of a learner, while it is the current one, and lends it a core during lessons."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line in (BUSY, IDLE) and process is self._process:
                    self.lend(int(line == BUSY))
        if self._process in (process, None):  # also if it was let go between two lines above
            self.lend(0)

    def _let_go(self) -> "subprocess.Popen[bytes] | None":
        """Ask the learner to end and forget it. Returns its process, if there was one."""
        process, self._process = self._process, None
        self.lend(0)
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        return process

    def _reap(self, process: "subprocess.Popen[bytes]") -> None:
        self._let_go()
        if process.returncode == 0 or self.clock.now() - self._began > _WHILE_S:
            self._wait_s = 0.0
        if process.returncode == 0:
            return
        self._back_off()
        self.say(f"the learner ended with code {process.returncode}; it is started again in {self._wait_s:.0f} s at the earliest")

    def _back_off(self) -> None:
        self._wait_s = min(_MOST_WAIT_S, max(_LEAST_WAIT_S, 2 * self._wait_s))
        self._not_before = self.clock.now() + self._wait_s

    def _tell(self, command: bytes) -> None:
        if command != self._told and self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has just ended: found at the next look
                self._process.stdin.write(command)
                self._process.stdin.flush()
            self._told = command

    def _end(self) -> None:
        process = self._let_go()
        if process is None:
            return
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
