"""Several streams at once: all their tokens per second, and the time to the first one; Ingle and llama.cpp's server in turn.

Every stream asks something else (about 60 tokens, template included), draws 128 tokens at temperature 0.8 with a seed of its own, and may
not end earlier. Both servers hold the same file, use the same number of threads and are asked by the same client, which shares
the cores with them. How tokens are drawn is said in full, in llama.cpp's own defaults, so that nothing is left to two servers' defaults.
llama.cpp's server batches continuously, and for each number of streams there is one with exactly as many slots; two, because its
threads may wait for each other spinning (as OpenMP does by itself) or passively, and which is faster depends on how much else the
machine does. The ratio is to the faster one. A figure counts the tokens that the servers report, over the time from the first
request to the last byte: prompts are in it.
"""

import asyncio
import shlex
import time
from typing import Any

from client import NO_END, Reply, ask, words
from harness import Figure, finish, over_best, show
from servers import Server, say, scratch_home, start_bench, start_ingle, start_llama, stopping

EXAMPLES = """  python bench/serve_load.py
  python bench/serve_load.py --rounds 3 --streams 8
  python bench/serve_load.py --without spin --llama-options="--ubatch-size 256"
"""
DRAWING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0}  # llama.cpp has 1.0 by default
PROMPT_WORDS = 26


def body(streams: int, stream: int, turn: int, tokens: int) -> dict[str, Any]:
    """The request of one of so many streams in one turn; all differ, so no server can have read its words before."""
    seed = 1_000_000 * streams + 1000 * turn + stream
    question = f"{words(PROMPT_WORDS, seed)}: make a story of these words."
    asked = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "seed": seed, "logit_bias": NO_END}
    return {**asked, **DRAWING, "stream": True, "stream_options": {"include_usage": True}}


async def run(server: Server, streams: int, turn: int, tokens: int) -> tuple[float, list[Reply]]:
    """Tokens per second of all streams together, and what each was told."""
    began = time.perf_counter()
    replies = await asyncio.gather(*(ask(server, body(streams, i, turn, tokens)) for i in range(streams)))
    took = max(reply.ended for reply in replies) - began
    written = [(reply.last("usage") or {}).get("completion_tokens", 0) for reply in replies]
    if any(reply.status != 200 for reply in replies) or set(written) != {tokens}:
        raise SystemExit(f"{server.name}: must write {tokens} tokens in each stream, wrote {written}: {replies[0].events[-2:]}")
    return sum(written) / took, replies


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", action="append", default=[], choices=["spin", "passive"])
    parser.add_argument("--llama-options", default="", help="more options for llama.cpp's server, to look for its best")
    options = parser.parse_args()
    waits = [wait for wait in ("spin", "passive") if wait not in options.without]
    names = ["ingle", *(f"llama.cpp, {wait}" for wait in waits)]
    keys = [(count, name) for count in options.streams for name in names]
    speeds: dict[Any, list[float]] = {key: [] for key in keys}
    firsts: dict[Any, list[float]] = {key: [] for key in keys}
    prompts: set[int] = set()
    with scratch_home() as home, stopping() as started:
        ours, extra = started(start_ingle(home, "--threads", str(options.threads))), shlex.split(options.llama_options)
        servers = {(count, "ingle"): ours for count in options.streams}
        for count in options.streams:
            for wait in waits:
                servers[count, f"llama.cpp, {wait}"] = started(start_llama(count, 1024, *extra, threads=options.threads, wait=wait))
        for turn in range(options.rounds + 1):
            for count, name in keys:
                time.sleep(0.4)  # threads that the other server left spinning go to sleep
                speed, replies = asyncio.run(run(servers[count, name], count, turn, options.tokens))
                prompts |= {reply.last("usage")["prompt_tokens"] for reply in replies}
                if turn:  # the first is to warm up
                    speeds[count, name].append(speed)
                    firsts[count, name] += [reply.first_s for reply in replies]
            say(f"round {turn} of {options.rounds}" if turn else "warm")
    figures, delays = ({key: Figure(tuple(values)) for key, values in table.items()} for table in (speeds, firsts))
    report(options.streams, names, figures, delays)
    print(f"tokens of a prompt: {min(prompts)} – {max(prompts)}")
    finish("serve_load", result(options.streams, names, figures, delays))


def best(count: int, names: list[str], speeds: dict[Any, Figure]) -> Figure:
    """Ours over the faster of the others, pair by pair."""
    return over_best(speeds[count, "ingle"], [speeds[count, name] for name in names[1:]])


def report(streams: list[int], names: list[str], speeds: dict[Any, Figure], delays: dict[Any, Figure]) -> None:
    """The tables."""
    rows: list[list[object]] = [["streams", *names, "Ingle ÷ the faster llama.cpp"]]
    for count in streams:
        rows.append([count, *(speeds[count, name] for name in names), best(count, names, speeds) if len(names) > 1 else ""])
    rounds = len(speeds[streams[0], "ingle"].values)
    show(f"SmolLM2-135M-Instruct Q4_1: tokens/s of all streams together, median (range) of {rounds} alternating runs", rows)
    rows = [["streams", *names], *([count, *(delays[count, name] for name in names)] for count in streams)]
    show("First token after, s: median (range) over all streams and runs", rows)


def result(streams: list[int], names: list[str], speeds: dict[Any, Figure], delays: dict[Any, Figure]) -> dict[str, Any]:
    """For the JSON line."""
    tables = {
        what: {name: {count: figures[count, name].table() for count in streams} for name in names}
        for what, figures in (("tokens_per_s", speeds), ("first_token_s", delays))
    }
    return tables | ({"ratio": {count: best(count, names, speeds).table() for count in streams}} if len(names) > 1 else {})


if __name__ == "__main__":
    main()
