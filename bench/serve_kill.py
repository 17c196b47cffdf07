"""The server is killed at random moments while it writes answers; nothing that a client saw finished may be lost.

Six clients ask one short thing after another, as streams and whole; four of them want their answers kept (`"store": true`). After
0.2 to 2 seconds comes SIGKILL, and a new server starts over the same home. Then, for every answer of which a client saw the end (the
finish_reason of a stream, which is sent after the fact is written; or the whole body), the ledger must hold a fact with that id
and the digest of just the text that the client got; kept ones must be found with the same text; the chain must verify; and
`ingle list` must work. Exit code 1 if anything is lost, or a server doesn't start again.
"""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from os import environ

from client import Reply, ask, words
from harness import Figure, finish, show
from ingle.app.answer_key import answer_key
from ingle.app.facts import answer_digest
from ingle.app.house import open_ledger, open_rooms
from ingle.home.place import Home
from ingle.home.turns import find_any_completion
from servers import Server, ingle_command, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/serve_kill.py
  python bench/serve_kill.py --kills 5 --seed 7
"""


@dataclass(frozen=True)
class Finished:
    """An answer of which a client saw the end."""

    id: str
    text: str
    kept: bool


async def client(server: Server, number: int, draw: random.Random, finished: list[Finished], cut: Counter[str]) -> None:
    """Asks until the connection breaks."""
    while True:
        stream, kept = draw.random() < 0.6, number < 4
        question = words(draw.randint(2, 12), draw.random())
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": draw.randint(2, 24), "stream": stream, "store": kept}
        reply, broken = Reply(), False
        try:
            await ask(server, body, reply=reply)
        except (OSError, asyncio.IncompleteReadError):
            broken = True  # the last piece may have come all the same
        if reply.status == 200 and reply.finish and reply.last("error") is None:
            finished.append(Finished(reply.last("id"), reply.text, kept))
        elif not broken:
            raise SystemExit(f"an answer that is none: {reply.status} {reply.events[-1:]}\n{server.said()[-2000:]}")
        else:
            cut["in the middle" if reply.pieces else "before its first piece"] += 1
        if broken:
            return


async def life(server: Server, draw: random.Random, finished: list[Finished], cut: Counter[str]) -> float:
    """The clients ask, and the server is killed. Returns after how many seconds."""
    tasks = [asyncio.create_task(client(server, number, random.Random(draw.random()), finished, cut)) for number in range(6)]
    after_s = draw.uniform(0.2, 2.0)
    await asyncio.sleep(after_s)
    server.process.send_signal(signal.SIGKILL)
    await asyncio.gather(*tasks)
    return after_s


def check(home: Home, finished: list[Finished], problems: list[str]) -> int:
    """What is missing of these answers goes to `problems`. Returns how many rows of the ledger are sound."""
    key, database = answer_key(home), open_rooms(home)
    try:
        with open_ledger(home) as ledger:
            wanted = {answer.id for answer in finished}
            digests = {}
            for row in ledger.read(kind="answer"):
                if row.values["id"] in wanted:
                    digests[row.values["id"]] = row.values["answer"]
                if len(digests) == len(wanted):
                    break
            verification = ledger.verify()
        for answer in finished:
            if answer.id not in digests:
                problems.append(f"{answer.id} is not in the ledger")
            elif digests[answer.id] != answer_digest(key, answer.text):
                problems.append(f"{answer.id} has another digest in the ledger")
            turn = find_any_completion(database, answer.id)
            if answer.kept and (turn is None or turn.message.text != answer.text):
                problems.append(f"{answer.id} was to be kept and is {'not there' if turn is None else 'another text'}")
            if not answer.kept and turn is not None:
                problems.append(f"{answer.id} was not to be kept and is")
        if verification.problem is not None:
            problems.append(f"the chain: row {verification.problem.seq}: {verification.problem.what}")
    finally:
        database.dispose()
    environment = environ | {"INGLE_HOME": str(home.root)}
    listed = subprocess.run([ingle_command(), "list"], check=False, env=environment, capture_output=True, text=True)
    if listed.returncode or "smollm2" not in listed.stdout:
        problems.append(f"ingle list: {listed.returncode} {listed.stderr[-300:]}")
    return verification.count


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, cut, problems = random.Random(options.seed), Counter[str](), list[str]()
    moments, starts, count, kept, rows = [], [], 0, 0, 0
    with scratch_home() as home, stopping() as started:
        server = started(start_ingle(home))
        for number in range(1, options.kills + 1):
            finished: list[Finished] = []
            moments.append(asyncio.run(life(server, draw, finished, cut)))
            server.stop(signal.SIGKILL)
            began = time.perf_counter()
            server = started(start_ingle(home))
            starts.append(time.perf_counter() - began)
            rows = check(home, finished, problems)
            count, kept = count + len(finished), kept + sum(answer.kept for answer in finished)
            if number % 5 == 0 or problems:
                say(f"kill {number} of {options.kills}: {count} answers finished, {rows} rows, {len(problems)} problems {problems[-1:]}")
        code = server.stop()
    table: list[list[object]] = [["", "figure"], ["kills", options.kills], ["after, s", Figure(tuple(moments))]]
    table += [["started again within, s", Figure(tuple(starts))], ["answers that clients saw finished", count], ["of these kept", kept]]
    table += [[f"answers cut {where}", number] for where, number in sorted(cut.items())]
    table += [["rows of the ledger, verified after every kill", rows], ["lost or wrong", len(problems)]]
    show("SIGKILL under load", table)
    for problem in problems[:20]:
        print(problem)
    result = {
        "kills": options.kills, "after_s": Figure(tuple(moments)).table(), "start_s": Figure(tuple(starts)).table(), "finished": count,
        "kept": kept, "cut": cut, "rows": rows, "problems": problems[:100], "exit_code": code,
    }  # fmt: skip
    finish("serve_kill", result)
    sys.exit(bool(problems) or not count)


if __name__ == "__main__":
    main()
