"""A process of one's own: what goes wrong in it ends it alone, and nobody waits for what nobody wants."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, Timer, get_ident

import pytest

from ingle.core.apart import CallFailed, ProcessApart, ProcessBusy, ProcessEnded, StopFlag
from ingle.core.errors import Interrupted, RequestError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessApart]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle = ProcessApart("tests.core.apart_worker", answer_s=20, idle_s=60)
    yield handle
    handle.close()


def test_it_answers_and_raises_what_was_raised_there(apart: ProcessApart) -> None:
    assert apart.pid is None, "nothing is started before it is used"
    assert apart.ask("echo", {"words": "hi"}, b"abc")[1] == b"cba"
    first = apart.pid
    with pytest.raises(RequestError, match="words must be kind"):
        apart.ask("refuse", {})
    with pytest.raises(CallFailed, match="ZeroDivisionError: by nothing"):
        apart.ask("break", {})
    assert apart.ask("echo", {"words": "still"})[0]["said"] == "still" and apart.pid == first
    assert 0 < apart.cpu_s < 5


def test_time_and_memory_end_it_alone(apart: ProcessApart) -> None:
    with pytest.raises(ProcessEnded, match="signal"):
        apart.ask("burn", {})
    with pytest.raises(CallFailed, match="MemoryError"):
        apart.ask("fill", {"size": 1 << 30})
    assert apart.ask("fill", {"size": 1 << 20})[0]["size"] == 1 << 20


def test_an_answer_that_takes_too_long_ends_it(apart: ProcessApart) -> None:
    short = ProcessApart("tests.core.apart_worker", answer_s=1.0, idle_s=60)
    with pytest.raises(ProcessEnded, match="took more than 1 seconds"):
        short.ask("sleep", {"seconds": 30}, tries=1)
    short.close()


def test_whoever_has_gone_is_waited_for_by_nobody(apart: ProcessApart) -> None:
    apart.ask("echo", {"words": "hi"})
    stop, began = StopFlag(), time.monotonic()
    Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        apart.ask("sleep", {"seconds": 15}, stop=stop, tries=2)
    assert time.monotonic() - began < 5
    with pytest.raises(Interrupted):
        apart.ask("echo", {"words": "hi"}, stop=stop)
    assert apart.ask("echo", {"words": "hi"})[0]["said"] == "hi", "the next one starts it again"


def test_closing_ends_an_answer_too(apart: ProcessApart) -> None:
    apart.ask("echo", {"words": "hi"})
    began = time.monotonic()
    Timer(0.3, apart.close).start()
    with pytest.raises(ProcessEnded):
        apart.ask("sleep", {"seconds": 15}, tries=2)
    assert time.monotonic() - began < 5
    assert apart.ask("echo", {"words": "hi"})[0]["said"] == "hi"


def test_an_idle_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle = ProcessApart("tests.core.apart_worker", answer_s=20, idle_s=0.2)
    handle.ask("echo", {"words": "hi"})
    deadline = time.monotonic() + 10
    while handle.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_whoever_can_wait_no_longer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handle = ProcessApart("tests.core.apart_worker", answer_s=20, patience_s=0.2)
    other = Thread(target=lambda: handle.ask("sleep", {"seconds": 2}))
    other.start()
    while handle.pid is None:
        time.sleep(0.01)
    with pytest.raises(ProcessBusy):
        handle.ask("echo", {"words": "hi"})
    other.join()
    assert handle.ask("echo", {"words": "hi"})[0]["said"] == "hi"
    handle.close()


def test_it_ends_in_the_middle_of_an_answer_when_its_asker_is_gone() -> None:
    code = (
        "import os, sys, threading, time\n"
        "from ingle.core.apart import ProcessApart\n"
        "handle = ProcessApart('tests.core.apart_worker', answer_s=60)\n"
        "threading.Thread(target=lambda: handle.ask('sleep', {'seconds': 50}), daemon=True).start()\n"
        "while handle.pid is None: time.sleep(0.01)\n"
        "print(handle.pid, flush=True); time.sleep(1); os._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_answer_that_was_given_up_is_nobody_elses(apart: ProcessApart) -> None:
    apart.ask("echo", {"words": "hi"})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        Timer(0.3, signal.pthread_kill, (get_ident(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            apart.ask("sleep", {"seconds": 1.5})
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(2)
    assert apart.ask("echo", {"words": "mine"})[0].get("said") == "mine"
