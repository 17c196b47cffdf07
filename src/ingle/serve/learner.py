"""Runs the learner beside the server, as a process of its own."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ingle.app.house import open_rooms
from ingle.engine.threads import Cores
from ingle.learn.learning_settings import LearnSettings
from ingle.learn.supervisor import Supervisor
from ingle.serve.logs import log
from ingle.serve.service import Service


@contextmanager
def learner_beside(service: Service, settings: LearnSettings, cores: Cores, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Run the learner within the block. It doesn't run if the settings say so; examples then stay pending.

    `cores`: the server's cores; the learner borrows one during a lesson.
    `overrides`: `--set` options of the server, which also apply to its learner.
    """
    if not settings.worker:
        yield
        return
    options = [part for one in overrides for part in ("--set", one)]
    command = [sys.executable, "-P", "-m", "ingle", "learn", "--attached", *options]

    def lend(count: int) -> None:
        cores.lent = count

    supervisor = Supervisor(
        service.home,
        lambda: open_rooms(service.home),
        command,
        settings,
        lambda: service.running,
        lend,
        lambda text: log("learner", {"says": text}),
        service.clock,
    )
    supervisor.start()
    service.learns, service.learning = True, settings
    try:
        yield
    finally:
        supervisor.close()
