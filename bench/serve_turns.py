"""What was read before is not read again: the second turn after a first of 2,000 prompt tokens; and a long prompt beside streams.

One conversation a round, its words new each time: a first turn (64 tokens of answer), a second (a question of about 20 tokens), the
second again (regenerate), a third, and the second with another question (an earlier message edited). A second conversation has its
first turn, then the server is stopped by SIGTERM and started again, and the second turn comes as soon as `/health` answers. A third
one knows nothing of its first turn, since its first word was changed: what the others would cost without a cache. Requests say
`"store": true`, since only what the user keeps is saved to disk. Figures: seconds to the first piece of text.

Beside streams: while four answers are being written, a prompt of 2,000 tokens comes. Figures: the longest gap between two pieces of any
of the four from then until the long prompt has its first token; and the longest in as long a time before.

llama.cpp's server does the same where it can; it saves slots only when it is told to, so there is no second turn after a restart.
"""

import asyncio
import itertools
import signal
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from client import NO_END, Reply, ask, words
from harness import Figure, finish, show
from servers import Server, say, scratch_home, start_bench, start_ingle, start_llama, stopping

EXAMPLES = """  python bench/serve_turns.py
  python bench/serve_turns.py --rounds 3 --without llama.cpp
"""
BARS = {"second turn": 0.3, "second turn after a restart": 0.6, "longest gap, 2,000 tokens arriving": 0.5}
Message = dict[str, str]
Figures = dict[str, list[float]]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(reply: Reply) -> Message:
    return {"role": "assistant", "content": reply.text}


def body(messages: list[Message], tokens: int, seed: int) -> dict[str, Any]:
    """A request whose answer has exactly `tokens` tokens."""
    drawn = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": seed, "logit_bias": NO_END, "max_tokens": tokens}
    return {"messages": messages, "stream": True, "stream_options": {"include_usage": True}, "store": True, **drawn}


def say_to(server: Server, messages: list[Message], tokens: int = 64, seed: int = 1) -> Reply:
    """One request, answered in full."""
    reply = asyncio.run(ask(server, body(messages, tokens, seed)))
    if reply.status != 200 or reply.last("usage")["completion_tokens"] != tokens:
        raise SystemExit(f"{server.name}: must write {tokens} tokens: {reply.status} {reply.events[-1:]}\n{server.said()[-2000:]}")
    return reply


def note(figures: Figures, what: str, reply: Reply) -> Reply:
    """Keeps what is measured."""
    figures[what].append(reply.first_s)
    usage = reply.last("usage")
    figures[f"{what}: prompt tokens"].append(usage["prompt_tokens"])
    figures[f"{what}: cached tokens"].append((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))
    return reply


def conversation(server: Server, turn: int, size: int, figures: Figures) -> None:
    """All that can be asked of a server that stays."""
    first = [user(words(size, f"{turn} first"))]
    talk = [*first, assistant(note(figures, "first turn", say_to(server, first)))]
    question = [*talk, user(words(18, f"{turn} second"))]
    second = note(figures, "second turn", say_to(server, question))
    note(figures, "regenerated", say_to(server, question, seed=2))
    say_to(server, [*question, assistant(second), user(words(18, f"{turn} third"))])
    note(figures, "an earlier question edited", say_to(server, [*talk, user(words(18, f"{turn} edited"))]))
    other = [user("Else: " + first[0]["content"]), *question[1:]]
    note(figures, "second turn, nothing known", say_to(server, other))


def gaps(reply: Reply, start: float, end: float) -> float:
    """The longest time without a piece of text between two moments."""
    times = [start, *(at for at, _ in reply.words if start < at < end), end]
    return max(b - a for a, b in itertools.pairwise(times))


async def beside(server: Server, turn: int, size: int, streams: int, figures: Figures) -> None:
    """A long prompt comes while others stream."""
    replies = [Reply() for _ in range(streams)]
    tasks = [
        asyncio.create_task(ask(server, body([user(words(20, f"{turn} stream {i}"))], 1500, i), reply=reply))
        for i, reply in enumerate(replies)
    ]
    try:
        while any(len(reply.pieces) < 40 for reply in replies):
            await asyncio.sleep(0.05)
            if any(task.done() for task in tasks):
                raise SystemExit(f"{server.name}: a stream ended early: {replies[0].events[-2:]}")
        long = await ask(server, body([user(words(size, f"{turn} long"))], 4, 1))
        if any(task.done() for task in tasks):
            raise SystemExit(f"{server.name}: streams ended before the long prompt was read")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    start, end = long.asked, long.asked + long.first_s
    quiet = max(reply.words[0][0] for reply in replies)
    figures["long prompt beside streams: its first token"].append(long.first_s)
    figures["longest gap, 2,000 tokens arriving"].append(max(gaps(reply, start, end) for reply in replies))
    figures["longest gap before"].append(max(gaps(reply, quiet, start) for reply in replies))


def restarted(server: Server, start: Callable[[], Server], turn: int, size: int, figures: Figures) -> Server:
    """A second turn of which only the disk knows the first. Returns the new server."""
    first = [user(words(size, f"{turn} before the restart"))]
    talk = [*first, assistant(say_to(server, first)), user(words(18, f"{turn} after it"))]
    server.stop(signal.SIGTERM)
    server = start()
    note(figures, "second turn after a restart", say_to(server, talk))
    return server


def report(names: list[str], figures: dict[str, Figures]) -> None:
    """The tables."""
    first, *others = names
    timed = [what for what in figures[first] if not what.endswith(" tokens")]
    rows: list[list[object]] = [["s", *names, "bar", "prompt tokens", "of these cached", *(f"{name}, cached" for name in others)]]
    for what in timed:
        row: list[object] = [what, *(Figure(tuple(v)) if (v := figures[name].get(what)) else "–" for name in names), BARS.get(what, "")]
        for name, kind in ((first, "prompt"), *((name, "cached") for name in names)):
            counts = figures[name].get(f"{what}: {kind} tokens")
            row.append(f"{min(counts):.0f} – {max(counts):.0f}" if counts else "")
        rows.append(row)
    show("SmolLM2-135M-Instruct Q4_1: seconds, median (range)", rows)


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=2000, help="of the first prompt, about")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--without", action="append", default=[], choices=["llama.cpp"])
    options = parser.parse_args()
    names = [name for name in ("ingle", "llama.cpp") if name not in options.without]
    figures: dict[str, Figures] = {name: defaultdict(list) for name in names}
    size = options.tokens - 32  # the template's share
    with scratch_home() as home, stopping() as started:
        servers = {"ingle": started(start_ingle(home))}
        if "llama.cpp" in names:
            servers["llama.cpp"] = started(start_llama(options.streams + 2, 4096))
        for turn in range(options.rounds + 1):
            into = figures if turn else {name: defaultdict(list) for name in names}  # the first is to warm up
            for name in names:
                conversation(servers[name], turn, size, into[name])
                asyncio.run(beside(servers[name], turn, size, options.streams, into[name]))
            servers["ingle"] = restarted(servers["ingle"], lambda: started(start_ingle(home)), turn, size, into["ingle"])
            say(f"round {turn} of {options.rounds}" if turn else "warm")
    report(names, figures)
    tables = {name: {what: Figure(tuple(values)).table() for what, values in by.items()} for name, by in figures.items()}
    met = {what: (max if "gap" in what else lambda v: Figure(tuple(v)).median)(figures["ingle"][what]) <= bar for what, bar in BARS.items()}
    print("bars met:", ", ".join(f"{what}: {'yes' if is_met else 'NO'}" for what, is_met in met.items()))
    finish("serve_turns", {"seconds": tables, "bars_s": BARS, "met": met})


if __name__ == "__main__":
    main()
