"""What learning takes while a client chats, and what the client notices of it.

A server answers one client, which asks one question after another, answers of 96 tokens, while the learner's worker stands by. The client's
tokens per second are taken alone, then while corrections come in (each when the one before is learned), and alone again after every five,
so that a machine that drifts shows. A correction goes the way of the page: the answer is kept, and `POST /v1/feedback` names it. Its
seconds are from the server's receipt to the row that says `learned`; the learner's own, from the ledger, stand beside them.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from adapt_data import Correction, Corrections
from adapt_home import OWNER, Log, bench_home
from client import NO_END, ask, words
from harness import Figure, show
from ingle.app.house import open_rooms
from ingle.core.example import State
from ingle.home.examples import get_example
from ingle.ledger.chain import Ledger
from servers import Server, say, start_ingle, stopping

ANSWER_TOKENS, ALONE_S, ALONE_EVERY, LOOK_S = 96, 30.0, 5, 0.1
DEADLINE_S = 300.0
OVER: tuple[State, ...] = ("learned", "refused", "kept", "superseded", "undone")


@dataclass
class Chat:
    """The client, and how fast its answers came."""

    server: Server
    answers: list[tuple[float, float, float]] = field(default_factory=list)
    """(first piece, last piece, tokens per second between them), by `time.perf_counter`."""
    first_s: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """The longest wait between two pieces of each answer, seconds."""

    async def go_on(self) -> None:
        """Asks until it is cancelled."""
        number = 0
        while True:
            number += 1
            question = f"{words(12, number)}?"
            body = {
                "messages": [{"role": "user", "content": question}], "max_tokens": ANSWER_TOKENS, "stream": True, "temperature": 0,
                "logit_bias": NO_END,
            }  # fmt: skip
            reply = await ask(self.server, body)
            if reply.status != 200 or len(reply.words) < 2:
                raise SystemExit(f"the client got {reply.status} {reply.events[-1:]}")
            begin, end = reply.words[0][0], reply.words[-1][0]
            self.answers.append((begin, end, (ANSWER_TOKENS - 1) / (end - begin)))
            self.first_s.append(reply.first_s)
            self.gaps.append(max(after[0] - before[0] for before, after in pairwise(reply.words)))

    def between(self, begin: float, end: float) -> list[float]:
        """Tokens per second of the answers that lie wholly within."""
        return [rate for first, last, rate in self.answers if begin <= first and last <= end]

    def gaps_between(self, begin: float, end: float) -> list[float]:
        """The longest wait of each answer that is at least partly within."""
        return [gap for (first, last, _), gap in zip(self.answers, self.gaps, strict=True) if begin <= last and first <= end]


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One POST. Raises HTTPError, with the body as its note, where it is refused; OSError where nobody answers."""
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            found: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        error.add_note(f"{path}: {error.read().decode()[:500]}")
        raise
    return found


def correct(server: Server, one: Correction) -> str:
    """Asks the question, and says what the answer should have been. Returns the id of the example."""
    asked = {"messages": [{"role": "user", "content": one.question}], "max_tokens": 40, "temperature": 0, "store": True, "memory": False}
    answer = post(server, "/v1/chat/completions", asked)
    return str(post(server, "/v1/feedback", {"completion_id": answer["id"], "correction": one.answer})["id"])


def run(folder: Path, data: str, file: Corrections, fresh: bool) -> dict[str, Any]:
    """The figures; what was learned before a kill is not measured again."""
    name = f"speed-{data}-{len(file.corrections)}-chat"
    if fresh:
        (folder / f"{name}.jsonl").unlink(missing_ok=True)
    home, log = bench_home(folder, name, fresh), Log(folder / f"{name}.jsonl")
    todo = [one for one in file.corrections if log.get("speed", one.id) is None]
    if todo:
        with stopping() as started:
            server = started(start_ingle(home, "--set", "learn.worker=true"))
            asyncio.run(_measure(server, home, todo, log))
    rows = [log.rows["speed", one.id] for one in file.corrections]
    alone = Figure(tuple(rate for (what, _), row in log.rows.items() if what == "alone" for rate in row["rates"]))
    beside = Figure(tuple(rate for row in rows for rate in row["rates"]))
    first_alone = Figure(tuple(s for (what, _), row in log.rows.items() if what == "alone" for s in row["first_s"]))
    first_beside = Figure(tuple(s for row in rows for s in row["first_s"]))
    gaps_alone = Figure(tuple(s for (what, _), row in log.rows.items() if what == "alone" for s in row["gaps"]))
    gaps_beside = Figure(tuple(s for row in rows for s in row["gaps"]))
    learned = [row for row in rows if row["state"] == "learned"]
    from_receipt = Figure(tuple(row["seconds"] for row in learned)) if learned else None
    own = [row["own_seconds"] for row in rows if row["own_seconds"] is not None]
    falls = 100 * (1 - beside.median / alone.median)
    table: list[list[object]] = [["", "median (range)"], ["client alone, tok/s", alone], ["client beside learning, tok/s", beside]]
    table += [["client falls by, %", f"{falls:.1f}"], ["first piece alone, s", first_alone], ["first piece beside, s", first_beside]]
    table += [["longest wait of an answer alone, s", gaps_alone], ["longest wait of an answer beside, s", gaps_beside]]
    table += [["from feedback to learned, s", from_receipt], ["the learner's own, s", Figure(tuple(own)) if own else None]]
    show(f"{len(rows)} corrections while one client chats, {len(learned)} learned", table)
    return {
        "corrections": len(rows), "learned": len(learned), "client_alone": alone.table(), "client_beside": beside.table(),
        "client_falls_percent": falls, "first_alone_s": first_alone.table(), "first_beside_s": first_beside.table(),
        "gaps_alone_s": gaps_alone.table(), "gaps_beside_s": gaps_beside.table(),
        "seconds": from_receipt.table() if from_receipt else None, "own_seconds": Figure(tuple(own)).table() if own else None,
    }  # fmt: skip


async def _measure(server: Server, home: Any, todo: list[Correction], log: Log) -> None:
    chat, engine = Chat(server), open_rooms(home)
    client = asyncio.create_task(chat.go_on())
    try:
        seen = _next_fact(Ledger(engine, home.keys), -1, 0.0)[0]
        await _alone(client, chat, log, 0)
        for number, one in enumerate(todo, 1):
            id_ = await asyncio.to_thread(correct, server, one)
            began = time.perf_counter()
            state = "pending"
            while state not in OVER:
                if time.perf_counter() - began > DEADLINE_S:
                    state = f"{state} after {DEADLINE_S:.0f} s"
                    break
                await asyncio.wait([client], timeout=LOOK_S)
                if client.done():
                    client.result()
                state = (await asyncio.to_thread(get_example, engine, OWNER, id_)).state
            ended = time.perf_counter()
            seen, facts = await asyncio.to_thread(_next_fact, Ledger(engine, home.keys), seen)
            firsts = chat.first_s[sum(first < began for first, _, _ in chat.answers) :]
            log.put(
                "speed",
                one.id,
                state=state,
                seconds=ended - began,
                own_seconds=facts.get("seconds"),
                rates=chat.between(began, ended),
                first_s=firsts,
                gaps=chat.gaps_between(began, ended),
            )
            say(f"{number} of {len(todo)}: {one.id} {state} after {ended - began:.1f} s; {len(chat.answers)} answers")
            if number % ALONE_EVERY == 0 or number == len(todo):
                await _alone(client, chat, log, number)
    finally:
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)
        engine.dispose()


async def _alone(client: "asyncio.Task[None]", chat: Chat, log: Log, after: int) -> None:
    began, before = time.perf_counter(), len(chat.first_s)
    await asyncio.wait([client], timeout=ALONE_S)
    if client.done():
        client.result()
    rates = chat.between(began, time.perf_counter())[1:]  # the first one finds a cold cache
    gaps = chat.gaps_between(began, time.perf_counter())[1:]
    log.put("alone", f"{time.time_ns()}", after=after, rates=rates, first_s=chat.first_s[before + 1 :], gaps=gaps)


def _next_fact(ledger: Ledger, seen: int, most_s: float = 10.0) -> tuple[int, dict[str, Any]]:
    """(its number, its values) of the first lesson that was let in or refused after fact number `seen`: it follows the row by a moment."""
    until = time.perf_counter() + most_s
    while True:
        found = [row for kind in ("lesson.accept", "lesson.refuse") for row in ledger.read(kind, last=1) if row.seq > seen]
        if found or time.perf_counter() >= until:
            last = max(found, key=lambda row: row.seq, default=None)
            return (seen, {}) if last is None else (last.seq, dict(last.values))
        time.sleep(LOOK_S)
