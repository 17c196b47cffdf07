"""Learners that are killed at random moments: run as a program, with a home that has things to learn.

    python killed.py HOME KILLS SEED

Each learner is a fork of this process, which has imported everything and started no thread. Between two kills the home is looked at
as any other process finds it; what is wrong with it is printed, a line each, and at the end `learned` and how many.
"""

import os
import random
import signal
import sys
from pathlib import Path

from ingle.app.house import open_rooms
from ingle.core.report import Event
from ingle.home.examples import list_examples
from ingle.home.lessons import list_lessons
from ingle.home.place import Home
from ingle.learn import teacher
from ingle.learn.learner import LOCK, Learner, Trainer, learn_once
from ingle.ledger.chain import Ledger
from tests.learn.lessons import SMALL
from tests.waiting import for_a_while


def die() -> None:
    """As `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def learn(home: Home, moment: str) -> None:
    """In the child: learns all, or dies at a moment: "gate" between the delta and its lesson, "fact" between the lesson and its fact."""
    engine = open_rooms(home)
    ledger, real = Ledger(engine, home.keys), teacher.trainer_of(home, engine, SMALL)

    def sink(event: Event) -> None:
        if moment == "fact" and event.kind == "lesson.accept":
            die()
        ledger.append(event)

    def judge(work, candidate):  # type: ignore[no-untyped-def]
        verdict = real.judge(work, candidate)
        if moment == "gate":
            die()
        return verdict

    with home.lock(LOCK):
        learner = Learner(home, engine, Trainer(real.teach, judge), sink)
        learner.start()
        learn_once(learner)


def wrong(home: Home) -> list[str]:
    """What must never be found, however a learner ended."""
    engine = open_rooms(home)
    acting = list_lessons(engine, None, acting=True)
    held = [(lesson.owner, id_) for lesson in acting for id_ in lesson.examples]
    found = [f"{key} is held twice" for key in set(held) if held.count(key) > 1]
    for one in list_examples(engine, None):
        if (one.state == "learned") != ((one.owner, one.id) in held):
            found.append(f"{one.id} is {one.state}, and its lesson does {'' if one.state == 'learned' else 'act'}")
    found += [f"{lesson.digest} has no delta" for lesson in acting if not home.delta_folder(lesson.digest).is_dir()]
    facts = [row.values["lesson"] for row in Ledger(engine, home.keys).read("lesson.accept")]
    found += [f"{digest} was learned twice" for digest in set(facts) if facts.count(digest) > 1]
    problem = Ledger(engine, home.keys).verify().problem if facts else None
    engine.dispose()
    return [*found, *([problem.what] if problem else [])]


def main(home: Home, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    moments = ["gate", "fact", *[""] * kills]
    for number, moment in enumerate([*moments, "end"]):
        child = os.fork()
        if not child:
            learn(home, moment)
            os._exit(0)
        if not moment:
            for_a_while(draw.uniform(0.0, 0.6))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for what in wrong(home):
            print(f"after {number} ({moment or 'a random moment'}): {what}")
    engine = open_rooms(home)
    told = {row.values["lesson"] for row in Ledger(engine, home.keys).read("lesson.accept")}
    missing = [lesson.digest for lesson in list_lessons(engine, None) if lesson.digest not in told]
    print(*(f"{digest} is not in the ledger" for digest in missing), sep="\n", end="" if not missing else "\n")
    print("learned", sum(one.state == "learned" for one in list_examples(engine, None)))
    engine.dispose()


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
