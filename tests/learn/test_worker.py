"""The learner as a process: killed, held, out of memory, and brought back by whoever serves."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingle.app.house import open_rooms
from ingle.core.clock import Clock
from ingle.core.errors import ConfigError, HomeError
from ingle.home.examples import get_example, list_examples
from ingle.learn.learner import LOCK, LearnerWatch
from ingle.learn.learning_settings import LearnSettings
from ingle.learn.supervisor import BESIDE, BUSY, GO, HOLD, IDLE, Supervisor
from ingle.learn.teacher import trainer_of
from ingle.learn.work import NO_MEMORY, Tries
from ingle.learn.worker import EXIT_MEMORY, WORKS, Breath, Signals, follow, listen, memory_bytes, tell
from ingle.ledger.chain import Ledger
from tests.adapt.conftest import House
from tests.clocks import HandClock
from tests.learn.lessons import ANSWERS, QUESTIONS, SMALL, acting, learn, lenient, stray
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]

posix = pytest.mark.skipif(os.name == "nt", reason="signals and forks are POSIX's")


@pytest.fixture
def school_house(house: House) -> House:
    """A house whose gate lets tiny models pass."""
    lenient(house)
    return house


def follow_with(house: House, settings: LearnSettings, signals: Signals, watch: LearnerWatch, stay: bool = True) -> None:
    trainer, sink = trainer_of(house.home, house.engine, SMALL), Ledger(house.engine, house.home.keys).append
    follow(house.home, house.engine, trainer, sink, settings, signals, watch, stay)


@pytest.mark.journey
@posix
def test_killed_at_any_moment_nothing_is_lost_and_nothing_learned_twice(school_house: House) -> None:
    house = school_house
    lenient(house, "\n".join(f"[{check}]\non = false" for check in ("bits", "learned", "safety", "unchanged")))
    for number in range(3):
        house.teach(f"{QUESTIONS[0]} Number {number}", ANSWERS[0], "" if number % 2 else "key-1")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.learn.killed", str(house.home.root), "3", "11"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert (done.returncode, done.stdout) == (0, "learned 3\n"), (done.stdout, done.stderr[-2000:])
    assert len(acting(house)) == 3 and not stray(house)
    assert {one.state for one in list_examples(house.engine, None)} == {"learned"}


def test_it_learns_what_comes_waits_while_it_is_held_and_ends_when_it_is_told_to(school_house: House) -> None:
    house, signals = school_house, Signals(held=True)
    house.teach(QUESTIONS[0], ANSWERS[0])
    said = list[str]()
    thread = threading.Thread(target=follow_with, args=(house, LearnSettings(idle_s=600.0), signals, LearnerWatch(said.append)))
    thread.start()
    wait_until((house.home.root / "locks" / f"{LOCK}.lock").exists, "it has begun")
    assert not said
    listen(signals, io.BytesIO(GO), lambda: None).join()
    wait_until(lambda: len(acting(house)) == 1, "the first is learned")
    house.teach(QUESTIONS[1], ANSWERS[1])
    wait_until(lambda: len(acting(house)) == 2, "the second is learned")
    listen(signals, io.BytesIO(HOLD), lambda: None).join()
    assert signals.held
    signals.ended = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_it_ends_by_itself_when_nothing_comes(school_house: House) -> None:
    follow_with(school_house, LearnSettings(idle_s=0.0), Signals(), LearnerWatch())


def test_there_is_one_learner_in_a_home(school_house: House) -> None:
    with school_house.home.lock(LOCK), pytest.raises(HomeError, match="in use"):
        follow_with(school_house, LearnSettings(), Signals(), LearnerWatch(), stay=False)


def test_a_learner_that_grows_too_large_ends_and_what_it_was_at_is_refused(school_house: House) -> None:
    """In a process of its own, which takes more than 1 MB before it has learned anything."""
    house = school_house
    large = house.teach(QUESTIONS[0], ANSWERS[0])
    program = f"""
import sys, time
from pathlib import Path
from ingle.learn.learning_settings import LearnSettings
from ingle.learn.learner import Trainer
from ingle.learn.worker import Signals, follow
from ingle.home.place import Home
from ingle.app.house import open_rooms

def teach(work):
    time.sleep(600)

home = Home(Path({str(house.home.root)!r}))
follow(home, open_rooms(home), Trainer(teach, None), print, LearnSettings(memory_mb=1), Signals())
"""
    if not memory_bytes():
        pytest.skip("this system doesn't tell how much memory a process has")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == EXIT_MEMORY, done.stderr[-2000:]
    if not Tries.of(house.home).memory:  # it was found too large before it had begun
        pytest.fail("what it was at is not written down")
    assert learn(house).outcomes == ()
    refused = get_example(house.engine, "", large.id)
    assert (refused.state, refused.reasons) == ("refused", (NO_MEMORY,))


@posix
def test_a_server_has_a_learner_when_there_is_something_to_learn_and_another_when_that_dies(school_house: House, tmp_path: Path) -> None:
    house = school_house
    program = (
        "import sys; open(sys.argv[1], 'a').write('began\\n'); print('a word of its own'); print('busy')\n"
        "for line in sys.stdin: open(sys.argv[1], 'a').write(line); print('idle' if line == 'hold\\n' else 'busy')"
    )
    told, answers, said, lent = tmp_path / "told", [0], list[str](), [0]

    def lines() -> list[str]:
        return told.read_text().split() if told.exists() else []

    supervisor = Supervisor(
        house.home,
        lambda: open_rooms(house.home),
        [sys.executable, "-u", "-c", program, str(told)],
        LearnSettings(),
        lambda: answers[0],
        lent.append,
        said.append,
    )
    supervisor.start()
    try:
        house.teach(QUESTIONS[0], ANSWERS[0])
        wait_until(lambda: lines() == ["began"], "the first learner")
        answers[0] = 2
        wait_until(lambda: lent[-1] == 1, "a core is lent while it is at a lesson")
        wait_until(lambda: supervisor._told == HOLD and lent[-1] == 0, "it is held, and gives the core back")
        answers[0] = 1
        wait_until(lambda: supervisor._told == BESIDE and lent[-1] == 1, "it goes on beside one answer")
        first = supervisor.process_id
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(lines()) >= 2 and supervisor.process_id not in (None, first), "the second learner")
        assert "ended with code -9" in said[0]
        assert 0 in lent[4:], "what is dead needs no core"
    finally:
        last = supervisor._process
        supervisor.close()
    assert last is not None and last.returncode == 0, "it ends when its input does"
    assert supervisor.process_id is None
    assert lent[-1] == 0


@posix
def test_a_learner_that_dies_again_and_again_is_waited_for_longer_each_time(school_house: House) -> None:
    house, said = school_house, list[str]()
    dies = [sys.executable, "-c", "raise SystemExit(3)"]
    hand = HandClock()
    supervisor = Supervisor(
        house.home, lambda: open_rooms(house.home), dies, LearnSettings(), lambda: 0, lambda _: None, said.append, hand.clock
    )  # fmt: skip
    supervisor.start()
    try:
        house.teach(QUESTIONS[0], ANSWERS[0])
        for deaths, wait_s in enumerate((1, 2, 4, 8, 16, 32, 60, 60), 1):
            wait_until(lambda: len(said) == deaths, "it dies")  # noqa: B023
            assert f"in {wait_s} s at the earliest" in said[-1] and supervisor.starts == deaths
            hand.move(wait_s)
    finally:
        supervisor.close()


def test_it_tells_when_a_lesson_begins_and_when_it_is_over(school_house: House) -> None:
    stream = io.BytesIO()
    school_house.teach(QUESTIONS[0], ANSWERS[0])
    follow_with(school_house, LearnSettings(idle_s=0.0), Signals(), LearnerWatch(trying=tell(stream)))
    assert stream.getvalue() == BUSY + IDLE


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"learn\.beside"):
        LearnSettings(beside=-1)


def test_a_lesson_pauses_beside_answers_and_waits_while_it_is_held() -> None:
    signals, told, now = Signals(), list[bool](), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 100:
            signals.held = False

    breath = Breath(signals, told.append, Clock(now=lambda: now[0], sleep=sleep))
    breath()
    now[0] += 0.4
    breath()
    assert told == [] and now[0] == 0.4, "nobody is beside it"
    signals.beside = True
    now[0] += 0.2
    breath()
    assert told == [False, True]
    assert now[0] - 0.6 == pytest.approx(0.2 * (1 / WORKS - 1), abs=0.06)
    now[0] += 0.01
    breath()
    assert len(told) == 2, "so short a piece of work needs no pause"
    signals.held, signals.beside = True, False
    breath()
    assert told == [False, True] * 2 and now[0] > 100
    signals.held = signals.ended = True
    breath()
    assert now[0] < 101, "it ends with its server"


def test_the_supervisor_says_what_is_beside_the_learner(school_house: House) -> None:
    heard = "import sys\nfor line in sys.stdin:\n    print(line, end='', file=sys.stderr, flush=True)"
    program = [sys.executable, "-c", f"import sys\nsys.stderr = open({str(school_house.home.root / 'heard')!r}, 'w')\n{heard}"]
    writing = [0]
    school_house.teach(QUESTIONS[0], ANSWERS[0])
    supervisor = Supervisor(
        school_house.home, lambda: open_rooms(school_house.home), program, LearnSettings(), lambda: writing[0], lambda _: None
    )  # fmt: skip
    supervisor.start()
    try:
        wait_until(lambda: supervisor.process_id is not None, "it is started")
        lines = list[str]()
        for count, command in ((1, BESIDE), (2, HOLD), (0, GO)):
            writing[0] = count
            lines.append(command.decode())
            wait_until(lambda: (school_house.home.root / "heard").read_text() == "".join(lines), command.decode())
    finally:
        supervisor.close()


def test_a_learner_that_ends_by_itself_ends_well_while_its_server_listens(house: House) -> None:
    command = [sys.executable, "-m", "ingle", "learn", "--attached", "--set", "learn.idle_s=0"]
    environment = {**os.environ, "INGLE_HOME": str(house.home.root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.wait(PATIENCE_S) == 0, process.stderr.read() if process.stderr is not None else ""
