"""Other people's streams beside an explanation: the longest gap between two pieces of an answer, with and without one.

    python bench/explain_load.py [--rounds 8] [--streams 4] [--tokens 160]

Streams write on one server. In every other round somebody asks why about a stored answer to a text of some 300 tokens, again and again
until the streams have ended. Gaps are those that the clients see, after the first piece. Rounds alternate; the bar is +0.1 s.
"""

import asyncio
import json
import statistics
import threading
import urllib.request
from itertools import pairwise
from typing import Any

from client import NO_END, Reply, ask, words
from harness import finish, show
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/explain_load.py
"""
_PLACES = (
    "Aldmoor", "Brenwick", "Carrow", "Dunvale", "Eastmere", "Farholt", "Glenrow", "Harwick", "Inverly", "Jarrow", "Kelham", "Merton",
    "Oakhurst", "Penrose",
)  # fmt: skip
TEXT = " ".join(f"The tower of {place} was built in {1800 + 7 * i} by the guild of {place}." for i, place in enumerate(_PLACES))


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A POST's answer."""
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        table: dict[str, Any] = json.load(response)
    return table


def stored(server: Server) -> str:
    """Id of an answer to explain."""
    asked = f"{TEXT}\n\nWhen was the tower of Carrow built?"
    body = {"messages": [{"role": "user", "content": asked}], "max_tokens": 24, "temperature": 0, "store": True}
    return str(post(server, "/v1/chat/completions", body)["id"])


async def streams(server: Server, count: int, turn: int, tokens: int) -> list[Reply]:
    """Answers of so many streams at once."""
    bodies = [
        {"messages": [{"role": "user", "content": f"{words(20, 1000 * turn + i)}: make a story of these words."}], "max_tokens": tokens,
         "seed": 1000 * turn + i, "temperature": 0.8, "repetition_penalty": 1.0, "logit_bias": NO_END, "stream": True}
        for i in range(count)
    ]  # fmt: skip
    return await asyncio.gather(*(ask(server, body) for body in bodies))


def gaps(reply: Reply) -> list[float]:
    """Seconds between pieces of an answer."""
    times = [at for at, _ in reply.words]
    return [b - a for a, b in pairwise(times)]


def main() -> None:
    """The script."""
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=160)
    options = parser.parse_args()
    longest: dict[bool, list[float]] = {False: [], True: []}
    took: list[float] = []
    with scratch_home() as home, stopping() as stop:
        server = stop(start_ingle(home))
        answer = stored(server)
        took_alone = [post(server, "/v1/explain", {"completion_id": answer})["ingle"]["seconds"] for _ in range(3)]
        for turn in range(options.rounds):
            explaining, over = turn % 2 == 1, threading.Event()

            def explain(over: threading.Event = over) -> None:
                while not over.is_set():
                    took.append(post(server, "/v1/explain", {"completion_id": answer})["ingle"]["seconds"])

            thread = threading.Thread(target=explain)
            if explaining:
                thread.start()
            replies = asyncio.run(streams(server, options.streams, turn, options.tokens))
            over.set()
            if explaining:
                thread.join()
            longest[explaining] += [max(gaps(reply)) for reply in replies]
            say(f"round {turn + 1} of {options.rounds}: longest gap {max(longest[explaining][-options.streams :]):.3f} s")
    rows: list[tuple[object, ...]] = [("", "longest gap of a stream, median s", "largest s", "streams")]
    for explaining, name in ((False, "without"), (True, "beside explanations")):
        some = longest[explaining]
        rows.append((name, f"{statistics.median(some):.3f}", f"{max(some):.3f}", len(some)))
    show("streams", rows)
    print(f"an explanation: {statistics.median(took_alone):.2f} s alone, {statistics.median(took):.2f} s beside the streams")
    finish("explain_load", {"longest": {"without": longest[False], "beside": longest[True]}, "alone_s": took_alone, "beside_s": took})


if __name__ == "__main__":
    main()
