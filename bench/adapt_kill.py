"""Server and learner are killed at random moments while a user corrects and chats; nothing that was acknowledged may be lost.

One client chats, another corrects one answer after another (an answer that is kept, then `POST /v1/feedback`), while no more than four
wait to be learned, so that kills meet examples in every state. After 0.2 to 25 seconds comes SIGKILL, for the server or for its learner. A
server is started again over the same home, and the model must answer; a learner's server must start another one itself. After each kill:
every correction that was acknowledged is in the home with its words; none is held by two lessons that act; each that is `learned` is held
by a lesson that acts, whose delta is whole; no lesson is in the ledger twice; the chain verifies. At the end the learner gets the time to
learn what is left, and then nothing may be pending. Exit code 1 if anything is wrong.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from adapt_data import Correction, read
from adapt_home import OWNER, bench_home
from adapt_speed import correct, post
from client import words
from harness import Figure, finish, show
from ingle.app.house import open_rooms
from ingle.core.example import Example
from ingle.home.deltas import verify_delta
from ingle.home.examples import list_examples
from ingle.home.lessons import list_lessons
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from servers import CACHE, Server, say, start_bench, start_ingle, stopping

if TYPE_CHECKING:
    from sqlalchemy import Engine

EXAMPLES = """  python bench/adapt_kill.py
  python bench/adapt_kill.py --kills 5 --seed 7 --most-seconds 10
"""
BROKEN = (OSError, HTTPException)
MOST_PENDING = 4
LEARNER_S, SETTLE_S, ORPHAN_S = 300.0, 900.0, 30.0
"""Within which a learner must be there again; must have got one further correction done when nobody kills it; must end after its server."""


@dataclass
class Users:
    """Two clients, until the server is gone."""

    server: Server
    corrections: Iterator[Correction]
    draw: random.Random
    acknowledged: dict[str, Correction]
    counts: Counter[str]
    pending: Callable[[], int]
    """Corrections that wait to be learned."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Both."""
        for one in (self._chat, self._correct):
            thread = threading.Thread(target=one, daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Waits for what they are at."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _chat(self) -> None:
        while not self._over.is_set():
            body = {"messages": [{"role": "user", "content": words(8, self.draw.random())}], "max_tokens": 40}
            try:
                post(self.server, "/v1/chat/completions", body)
            except BROKEN as error:
                if self._gone(error):
                    return
            self.counts["answers"] += 1

    def _correct(self) -> None:
        while not self._over.is_set():
            if self.pending() >= MOST_PENDING:
                self._over.wait(0.5)
                continue
            one = next(self.corrections)
            try:
                self.acknowledged[correct(self.server, one)] = one
            except BROKEN as error:
                if self._gone(error):
                    self.counts["corrections cut by a kill"] += 1
                    return
            self._over.wait(self.draw.uniform(0.0, 12.0))

    def _gone(self, error: Exception) -> bool:
        """Whether the server is gone; it may be in the way of too much, and say so."""
        if isinstance(error, urllib.error.HTTPError):
            self.counts[f"answered with {error.code}"] += 1
            if error.code not in (429, 503):
                say(f"{error} {getattr(error, '__notes__', '')}")
            self._over.wait(1.0)
            return False
        return True


def all_corrections(draw: random.Random) -> Iterator[Correction]:
    """Every correction of both files, and the same in other words, in random order; then again with a number behind the question."""
    rounds = 0
    while True:
        found = [
            Correction(one.id, one.kind, asked + (f" ({rounds})" if rounds else ""), one.answer, one.accept, (), ())
            for name in ("test", "dev")
            for one in read(name).corrections
            for asked in (one.question, *one.paraphrases)
        ]
        draw.shuffle(found)
        yield from found
        rounds += 1


def waiting(engine: "Engine") -> list[Example]:
    """What is to be learned."""
    return [one for one in list_examples(engine, OWNER, ["pending", "learning"]) if one.learn]


def learner_of(server: Server) -> list[int]:
    """Process ids of the server's children that learn."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            told = (path / "cmdline").read_bytes()
            if parent == server.process.pid and (b"learn" in told or b"worker" in told):
                found.append(int(path.name))
    return found


def kill_learner(server: Server, problems: list[str]) -> bool:
    """SIGKILL for the learner, as soon as there is one."""
    begin = time.perf_counter()
    while not (found := learner_of(server)):
        if time.perf_counter() - begin > LEARNER_S:
            problems.append(f"no learner within {LEARNER_S:.0f} s")
            return False
        time.sleep(0.05)
    if len(found) > 1:
        problems.append(f"{len(found)} learners at once")
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def orphans(learners: Sequence[int], problems: list[str]) -> None:
    """Learners of a server that is gone must go too."""
    begin = time.perf_counter()
    while left := [pid for pid in learners if _lives(pid)]:
        if time.perf_counter() - begin > ORPHAN_S:
            problems.append(f"{len(left)} learners outlive their server by {ORPHAN_S:.0f} s")
            return
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def check(home: Home, engine: "Engine", acknowledged: dict[str, Correction], problems: list[str]) -> Counter[str]:
    """What is wrong goes to `problems`. Returns how many examples there are of each state."""
    examples = {one.id: one for one in list_examples(engine, OWNER)}  # first: what is learned in it has its lesson in the next line
    lessons = list_lessons(engine, OWNER)
    for id_, one in acknowledged.items():
        found = examples.get(id_)
        if found is None or (found.question, found.answer) != (one.question, one.answer):
            problems.append(f"{id_} was acknowledged and is {'lost' if found is None else 'altered'}")
    held = Counter(id_ for lesson in lessons if lesson.acting for id_ in lesson.examples)
    problems += [f"{id_} is held by {count} lessons" for id_, count in held.items() if count > 1]
    acting = {lesson.digest for lesson in lessons if lesson.acting}
    for example in examples.values():
        if example.state == "learned" and (example.lesson not in acting or not held[example.id]):
            problems.append(f"{example.id} is learned, and no lesson that acts holds it")
    for digest in acting:
        try:
            faults = verify_delta(home, digest)
        except Exception as error:
            faults = [str(error)]
        problems += [f"lesson {digest[:12]}: {fault}" for fault in faults]
    ledger = Ledger(engine, home.keys)
    told = Counter(row.values["lesson"] for row in ledger.read("lesson.accept"))
    problems += [f"lesson {str(digest)[:12]} was accepted {count} times" for digest, count in told.items() if count > 1]
    if (wrong := ledger.verify().problem) is not None:
        problems.append(f"the chain: row {wrong.seq}: {wrong.what}")
    return Counter(example.state for example in examples.values())


def serves(server: Server, problems: list[str]) -> None:
    """The model answers."""
    try:
        answer = post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8})
        if not answer["choices"][0]["message"]["content"]:
            problems.append("an empty answer")
    except (*BROKEN, KeyError, ValueError) as error:
        problems.append(f"it does not answer: {error}")


def settle(home: Home, engine: "Engine", server: Server, problems: list[str]) -> list[Example]:
    """Waits until nothing is pending. Returns what still is when nothing has moved for too long."""
    since, last = time.perf_counter(), -1
    while left := waiting(engine):
        if len(left) != last:
            since, last = time.perf_counter(), len(left)
            say(f"{last} are left to be learned")
        if time.perf_counter() - since > SETTLE_S:
            problems.append(f"{len(left)} are {', '.join(sorted({one.state for one in left}))} still: {left[0].id}")
            break
        if server.process.poll() is not None:
            problems.append(f"the server ended by itself: {server.said()[-500:]}")
            break
        time.sleep(0.5)
    told = {row.values["lesson"] for row in Ledger(engine, home.keys).read("lesson.accept")}
    untold = [lesson for lesson in list_lessons(engine, OWNER, acting=True) if lesson.digest not in told]
    problems += [f"lesson {lesson.digest[:12]} acts, and the ledger does not say so" for lesson in untold]
    return left


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-seconds", type=float, default=25.0, help="between a start and a kill")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "adapt-kill", help="emptied first")
    options = parser.parse_args()
    draw, problems, counts = random.Random(options.seed), list[str](), Counter[str]()
    acknowledged: dict[str, Correction] = {}
    moments, starts, states = [], [], Counter[str]()
    home = bench_home(options.home, f"seed-{options.seed}", fresh=True)
    corrections, engine = all_corrections(random.Random(draw.random())), open_rooms(home)
    with stopping() as started:
        server = users = None
        for number in range(1, options.kills + 1):
            if server is None or users is None:
                began = time.perf_counter()
                server = started(start_ingle(home, "--set", "learn.worker=true"))
                starts.append(time.perf_counter() - began)
                serves(server, problems)
                users = Users(server, corrections, random.Random(draw.random()), acknowledged, counts, lambda: len(waiting(engine)))
                users.start()
            moments.append(draw.uniform(0.2, options.most_seconds))
            time.sleep(moments[-1])
            if draw.random() < 0.4:
                counts["kills of the learner"] += kill_learner(server, problems)
            else:
                learners = learner_of(server)
                server.process.send_signal(signal.SIGKILL)
                counts["kills of the server"] += 1
                orphans(learners, problems)
                users.end()
                server.stop(signal.SIGKILL)
                server = users = None
            states = check(home, engine, dict(acknowledged), problems)
            if number % 5 == 0 or problems:
                said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
                say(f"kill {number} of {options.kills}: {len(acknowledged)} acknowledged; {said}; {len(problems)} problems {problems[-1:]}")
        if users is not None:
            users.end()
        server = server or started(start_ingle(home, "--set", "learn.worker=true"))
        left = settle(home, engine, server, problems)
        states = check(home, engine, acknowledged, problems)
        serves(server, problems)
        code = server.stop()
    _report(options.kills, counts, moments, starts, acknowledged, states, problems, left, code)


def _report(
    kills: int, counts: Counter[str], moments: Sequence[float], starts: Sequence[float], acknowledged: dict[str, Correction],
    states: Counter[str], problems: list[str], left: Sequence[Example], code: int,
) -> None:  # fmt: skip
    table: list[list[object]] = [["", "figure"], ["kills", kills], ["after, s", Figure(tuple(moments))]]
    table += [["started again within, s", Figure(tuple(starts))], ["corrections acknowledged", len(acknowledged)]]
    table += [[what, count] for what, count in sorted(counts.items())] + [[f"in the end {what}", n] for what, n in sorted(states.items())]
    written = sum(states.values()) - len(acknowledged)
    table += [["written and not acknowledged (cut in between)", written], ["lost, twice, or wrong", len(problems)]]
    show("SIGKILL while it learns", table)
    for problem in problems[:20]:
        print(problem)
    result = {
        "kills": kills, "after_s": Figure(tuple(moments)).table(), "start_s": Figure(tuple(starts)).table(), "counts": counts,
        "acknowledged": len(acknowledged), "states": states, "unacknowledged": written, "left": len(left), "problems": problems[:100],
        "exit_code": code,
    }  # fmt: skip
    finish("adapt_kill", result)
    sys.exit(bool(problems) or not acknowledged)


if __name__ == "__main__":
    main()
