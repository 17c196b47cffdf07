"""More clients than the server has places for, for minutes: what is refused, how long the rest waits, and whether anything is lost.

Each client asks again and again: a question of random length, 8 to 128 tokens of answer, as a stream or whole, with one of several
keys or with none. One request in ten is given up half-way (the client hangs up after a random time). Told 429, a client waits
as long as Retry-After says. When the time is over, the last answers are waited for, the server is stopped by SIGTERM, and then the
ledger must hold the fact of every answer that a client saw finished, with the digest of just the text that the client got.

Memory is the server's resident set. States of earlier prompts fill their budget first (--state-mb), so growth is told from half-time on.
Exit code 1: any status of 500 or above, a refusal other than 429, an error within a stream, a connection that broke, a finished
answer without its fact, or a chain that doesn't verify.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client import Reply, ask, words
from harness import finish, show
from ingle.app.answer_key import answer_key
from ingle.app.facts import answer_digest
from ingle.app.house import open_ledger, open_rooms
from ingle.home.api_keys import add_key
from ingle.home.place import Home
from ingle.ledger.verify import Verification
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/serve_overload.py
  python bench/serve_overload.py --seconds 30 --clients 50
"""
LAST_S = 120.0
"""Longest wait for the answers that are on their way when the time is over."""


@dataclass
class Seen:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    hung_up: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    """Connections that ended in the middle, and errors within streams, by what they were."""
    finished: list[tuple[str, str]] = field(default_factory=list)
    """Id and text."""
    first_s: list[float] = field(default_factory=list)
    """Of streams."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, MB)."""
    marks: dict[str, dict[str, float]] = field(default_factory=dict)


async def client(server: Server, number: int, keys: list[str], until: float, seen: Seen) -> None:
    """Asks until the time is over."""
    draw = random.Random(number)
    while time.perf_counter() < until:
        stream, key = draw.random() < 0.6, draw.choice(keys)
        question = words(draw.randint(3, 120), draw.random())
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": draw.randint(8, 128), "stream": stream}
        patience = draw.uniform(0.05, 5) if draw.random() < 0.1 else None
        reply = Reply()
        try:
            async with asyncio.timeout(patience):
                await ask(server, body, key, reply)
        except TimeoutError:
            seen.hung_up += 1
            continue
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.broken[type(error).__name__] += 1
            continue
        take(reply, stream, seen)
        if reply.status == 429:
            await asyncio.sleep(min(max(reply.retry_after_s, 0.1), max(0.0, until - time.perf_counter())))


def take(reply: Reply, stream: bool, seen: Seen) -> None:
    """Counts a reply that came to its end."""
    seen.statuses[reply.status] += 1
    if reply.status != 200:
        return
    if error := reply.last("error"):
        seen.broken[f"error within a stream: {error.get('code')}"] += 1
    elif reply.finish is None:
        seen.broken["an answer without an end"] += 1
    else:
        seen.finished.append((reply.last("id"), reply.text))
        if stream and reply.words:
            seen.first_s.append(reply.first_s)


async def watch(server: Server, began: float, seconds: float, seen: Seen) -> None:
    """Notes the server's memory every second, and what it says of itself at 10, 50 and 100 %."""
    marks = {"10 %": 0.1 * seconds, "50 %": 0.5 * seconds, "100 %": seconds}
    for second in range(1, int(seconds) + 1):
        await asyncio.sleep(max(0.0, began + second - time.perf_counter()))
        now = time.perf_counter() - began
        seen.memory.append((now, server.rss_mb()))
        for name in [name for name, at in marks.items() if now >= at - 0.5]:
            del marks[name]
            page = await asyncio.to_thread(server.get, "/metrics")
            told = dict(line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
            values = {what: float(told[f"ingle_{what}"]) for what in ("running", "queued", "prefix_cache_bytes", "completion_tokens_total")}
            seen.marks[name] = {"seconds": now, "resident_mb": seen.memory[-1][1], **values}
            say(f"{name}: {seen.memory[-1][1]:.0f} MB, {sum(seen.statuses.values())} answered, {dict(seen.statuses)}")


async def load(server: Server, clients: int, keys: list[str], seconds: float) -> Seen:
    """All clients at once, and the watch."""
    seen, began = Seen(), time.perf_counter()
    tasks = [asyncio.create_task(client(server, number, keys, began + seconds, seen)) for number in range(clients)]
    await watch(server, began, seconds, seen)
    _, late = await asyncio.wait(tasks, timeout=LAST_S)
    for task in late:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    seen.broken["not answered in time"] += len(late)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
    return seen


def lost(home: Home, finished: list[tuple[str, str]]) -> tuple[int, Counter[Any], Verification]:
    """Finished answers without a fact that agrees, the facts by what ended the answer, and what verifying says."""
    key = answer_key(home)
    with open_ledger(home) as ledger:
        rows = [row.values for row in ledger.read(kind="answer")]
        digests = {facts["id"]: facts["answer"] for facts in rows}
        missing = sum(digests.get(completion) != answer_digest(key, text) for completion, text in finished)
        return missing, Counter(facts["finish"] for facts in rows), ledger.verify()


def slope(memory: list[tuple[float, float]]) -> float:
    """Growth in MB a minute, by least squares."""
    times, sizes = np.array(memory).T
    return float(np.polyfit(times / 60, sizes, 1)[0]) if len(memory) > 1 else 0.0


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--state-mb", type=int, default=512, help="the server's memory for states")
    options = parser.parse_args()
    with scratch_home() as home, stopping() as started:
        database = open_rooms(home)
        keys = ["", *(add_key(database, f"client {i}", 100_000)[1] for i in range(options.keys))]
        database.dispose()
        server = started(start_ingle(home, "--set", f"serve.state_mb={options.state_mb}"))
        seen = asyncio.run(load(server, options.clients, keys, options.seconds))
        code, log = server.stop(), server.said()
        missing, facts, verification = lost(home, seen.finished)
    report(seen, missing, facts, verification, code, log.count("Traceback"))


def report(seen: Seen, missing: int, facts: Counter[Any], verification: Verification, code: int, tracebacks: int) -> None:
    """The tables, the line for machines, and the exit code."""
    half = [(at, size) for at, size in seen.memory if at >= seen.memory[-1][0] / 2]
    p50, p99 = (float(value) for value in np.percentile(seen.first_s or [float("nan")], [50, 99]))
    begin, end = seen.marks["10 %"], seen.marks["100 %"]
    speed = (end["completion_tokens_total"] - begin["completion_tokens_total"]) / (end["seconds"] - begin["seconds"])
    rows: list[list[object]] = [["", "figure"]]
    rows += [[f"status {status}", count] for status, count in sorted(seen.statuses.items())]
    rows += [["hung up half-way", seen.hung_up], *([what, count] for what, count in seen.broken.items() if count)]
    rows += [["answers that clients saw finished", len(seen.finished)], ["of these not in the ledger, or with another digest", missing]]
    rows += [[f"facts in the ledger, ended by {finish_}", count] for finish_, count in sorted(facts.items())]
    rows += [["chain", "verifies" if verification.problem is None else f"row {verification.problem.seq}: {verification.problem.what}"]]
    rows += [["tokens/s", f"{speed:.1f}"], ["first token of an admitted stream, p50, s", f"{p50:.2f}"], ["p99, s", f"{p99:.2f}"]]
    for name, mark in seen.marks.items():
        rows.append([f"resident at {name}, MB (of which states)", f"{mark['resident_mb']:.0f} ({mark['prefix_cache_bytes'] / 1e6:.0f})"])
    rows.append(["growth in the second half, MB a minute", f"{slope(half):+.2f}"])
    show("Overload", rows)
    claims = {
        "no status of 500 or above": not any(status >= 500 for status in seen.statuses),
        "refusals are 429": not any(400 <= status < 500 and status != 429 for status in seen.statuses),
        "nothing broke": not +seen.broken and 0 not in seen.statuses,
        "every finished answer is in the ledger": missing == 0 and bool(seen.finished),
        "the chain verifies": verification.problem is None,
        "the server's log has no traceback": tracebacks == 0,
    }
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO '}  {claim}")
    result = {
        "statuses": seen.statuses, "hung_up": seen.hung_up, "broken": +seen.broken, "finished": len(seen.finished), "missing": missing,
        "facts": facts, "rows": verification.count, "tokens_per_s": speed, "first_token_s": {"p50": p50, "p99": p99},
        "memory": seen.marks, "growth_mb_per_min": slope(half), "exit_code": code, "claims": claims,
    }  # fmt: skip
    finish("serve_overload", result)
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
