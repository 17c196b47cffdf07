"""A process of one's own: what goes wrong in it ends it alone, and nobody waits for what nobody wants."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread, get_ident

import pytest

from ingle.core.apart import CallFailed, ProcessApart, ProcessBusy, ProcessEnded, StopFlag
from ingle.core.errors import Interrupted, RequestError
from tests.clocks import HandClock
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, hand: HandClock) -> Iterator[ProcessApart]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle = ProcessApart("tests.core.apart_worker", answer_s=20, idle_s=60, clock=hand.clock)
    yield handle
    handle.close()


def while_it_sleeps(apart: ProcessApart, folder: Path, act: Callable[[], object], tries: int = 2, stop: StopFlag | None = None) -> None:
    """Asks for an answer that never comes, and acts once that is being worked on."""
    mark = folder / "mark"

    def when_it_has_begun() -> None:
        wait_until(mark.exists, "the question is heard")
        act()

    thread = Thread(target=when_it_has_begun)
    thread.start()
    try:
        apart.ask("sleep", {"mark": str(mark)}, stop=stop, tries=tries)
    finally:
        thread.join()


def test_it_answers_and_raises_what_was_raised_there(apart: ProcessApart) -> None:
    assert apart.pid is None, "nothing is started before it is used"
    assert apart.ask("echo", {"words": "hi"}, b"abc")[1] == b"cba"
    first = apart.pid
    with pytest.raises(RequestError, match="words must be kind"):
        apart.ask("refuse", {})
    with pytest.raises(CallFailed, match="ZeroDivisionError: by nothing"):
        apart.ask("break", {})
    assert apart.ask("echo", {"words": "still"})[0]["said"] == "still" and apart.pid == first
    assert apart.cpu_s > 0


def test_time_and_memory_end_it_alone(apart: ProcessApart) -> None:
    with pytest.raises(ProcessEnded, match="signal"):
        apart.ask("burn", {})
    with pytest.raises(CallFailed, match="MemoryError"):
        apart.ask("fill", {"size": 1 << 30})
    assert apart.ask("fill", {"size": 1 << 20})[0]["size"] == 1 << 20


def test_an_answer_that_takes_too_long_ends_it(apart: ProcessApart, hand: HandClock, tmp_path: Path) -> None:
    apart.ask("echo", {"words": "hi"})
    first, seen = apart.pid, list[int | None]()

    def nearly_late() -> None:
        hand.move(19)
        seen.append(apart.pid)
        hand.move(1)

    with pytest.raises(ProcessEnded, match="took more than 20 seconds"):
        while_it_sleeps(apart, tmp_path, nearly_late, tries=1)
    assert seen == [first], "it had its whole time"


def test_whoever_has_gone_is_waited_for_by_nobody(apart: ProcessApart, tmp_path: Path) -> None:
    stop = StopFlag()
    with pytest.raises(Interrupted):
        while_it_sleeps(apart, tmp_path, stop.set, stop=stop)
    with pytest.raises(Interrupted):
        apart.ask("echo", {"words": "hi"}, stop=stop)
    assert apart.ask("echo", {"words": "hi"})[0]["said"] == "hi", "the next one starts it again"


def test_closing_ends_an_answer_too(apart: ProcessApart, tmp_path: Path) -> None:
    with pytest.raises(ProcessEnded):
        while_it_sleeps(apart, tmp_path, apart.close)
    assert apart.ask("echo", {"words": "hi"})[0]["said"] == "hi"


def test_an_idle_one_ends(apart: ProcessApart, hand: HandClock) -> None:
    apart.ask("echo", {"words": "hi"})
    hand.move(40)
    apart.ask("echo", {"words": "hi"})
    hand.move(59)
    assert apart.pid is not None, "the last question is 59 seconds ago"
    hand.move(1)
    assert apart.pid is None


def test_whoever_can_wait_no_longer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle, told = ProcessApart("tests.core.apart_worker", answer_s=None, patience_s=0.01), list[type[Exception]]()

    def ask_too() -> None:
        with pytest.raises(ProcessBusy) as refused:
            handle.ask("echo", {"words": "hi"})
        told.append(refused.type)
        (tmp_path / "go").touch()

    mark = tmp_path / "mark"
    other = Thread(target=lambda: handle.ask("hold", {"mark": str(mark), "until": str(tmp_path / "go")}))
    other.start()
    wait_until(mark.exists, "the first question is heard")
    ask_too()
    other.join()
    assert told == [ProcessBusy] and handle.ask("echo", {"words": "hi"})[0]["said"] == "hi"
    handle.close()


def test_it_ends_in_the_middle_of_an_answer_when_its_asker_is_gone(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import os, sys, threading, time\n"
        "from ingle.core.apart import ProcessApart\n"
        "handle = ProcessApart('tests.core.apart_worker', answer_s=None)\n"
        f"threading.Thread(target=lambda: handle.ask('sleep', {{'mark': {str(mark)!r}}}), daemon=True).start()\n"
        f"while not os.path.exists({str(mark)!r}): time.sleep(0.01)\n"
        "print(handle.pid, flush=True); os._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout)
    status = Path(f"/proc/{pid}/stat")
    wait_until(lambda: not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z", "the worker has ended")


def test_an_answer_that_was_given_up_is_nobody_elses(apart: ProcessApart, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    asking = get_ident()
    try:
        with pytest.raises(KeyboardInterrupt):
            while_it_sleeps(apart, tmp_path, lambda: signal.pthread_kill(asking, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert apart.ask("echo", {"words": "mine"})[0].get("said") == "mine"
