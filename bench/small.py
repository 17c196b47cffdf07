"""How much memory a server takes: idle, after a chat, through 20 turns to 2,000 tokens; as it comes, without its page, and `--small`.

Each server is a process of its own over one home. Figures are the kernel's (`/proc/PID/smaps_rollup`): what is resident (RSS), the share of
it that is this process's (PSS), and what no file holds (its own). The weights are a mapped file: they count in RSS and PSS from the first
answer on, and the system may take them back. The most is the kernel's high-water mark. Beside other programs memory is the same; speeds are
not. The rounds of speed alternate between the servers, all on as many threads as `--threads` says.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from client import NO_END, Reply, ask, words
from harness import Figure, finish, ratios, show
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/small.py
  python bench/small.py --rounds 0            (memory alone)
"""
SERVERS = {"as it comes": ("--page",), "without its page": ("--no-page",), "small": ("--small",)}
BARS_MB = {"idle": 160.0, "most, 20 turns": 300.0}
"""Bars of RSS for a small server."""
TURNS, QUESTION, ANSWER = 20, 46, 40
QUIET_S = 3.0
"""After so long, freed memory has gone back to the system."""
Message = dict[str, str]


def memory_mb(server: Server) -> dict[str, float]:
    """RSS, PSS and the process's own memory."""
    lines = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines()[1:]
    table = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {"rss": table["Rss"], "pss": table["Pss"], "own": table["Anonymous"]}


def most_mb(server: Server) -> float:
    """The most that was ever resident."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def answered(server: Server, messages: list[Message], tokens: int) -> Reply:
    """One answer of exactly so many tokens."""
    body: dict[str, Any] = {"messages": messages, "max_tokens": tokens, "logit_bias": NO_END, "temperature": 0, "repeat_limit": 0}
    reply = asyncio.run(ask(server, body))
    if reply.status != 200:
        raise SystemExit(f"{server.name}: {reply.status} {reply.events[-1:]}\n{server.said()[-2000:]}")
    return reply


def conversation(server: Server) -> tuple[int, dict[str, float]]:
    """Twenty turns; returns how many tokens it has at the end, and the most memory after any of them."""
    talk, most, length = list[Message](), dict[str, float](), 0
    for turn in range(TURNS):
        talk.append({"role": "user", "content": words(QUESTION, f"turn {turn}")})
        reply = answered(server, talk, ANSWER)
        talk.append({"role": "assistant", "content": reply.text})
        length = reply.last("usage")["total_tokens"]
        now = memory_mb(server)
        most = {key: max(value, most.get(key, 0.0)) for key, value in now.items()}
    return length, most


def stages(server: Server) -> dict[str, Any]:
    """Memory at every stage, and how long the conversation became."""
    time.sleep(QUIET_S)
    found: dict[str, Any] = {"idle": memory_mb(server), "most, start": most_mb(server)}
    answered(server, [{"role": "user", "content": "What is a hearth?"}], 64)
    time.sleep(QUIET_S)
    found["after a chat"] = memory_mb(server)
    found["tokens"], found["most after a turn"] = conversation(server)
    found["most, 20 turns"] = most_mb(server)
    time.sleep(QUIET_S)
    found["after 20 turns"] = memory_mb(server)
    return found


def speeds(server: Server, turn: int) -> dict[str, float]:
    """Tokens/s of a new prompt of 1,000 tokens, and of 96 that are written."""
    took = answered(server, [{"role": "user", "content": words(970, f"speed {turn}")}], 96)
    seconds, usage = took.last("ingle")["seconds"][0], took.last("usage")
    return {"reading": usage["prompt_tokens"] / seconds["prefill"], "writing": (usage["completion_tokens"] - 1) / seconds["decode"]}


def report(memory: dict[str, dict[str, Any]], speed: dict[str, dict[str, Figure]]) -> None:
    """The tables."""
    rows: list[list[object]] = [["MB: RSS (PSS, own)", *memory]]
    for stage in ("idle", "after a chat", "most after a turn", "after 20 turns"):
        cells = [memory[name][stage] for name in memory]
        rows.append([stage, *(f"{cell['rss']:.0f} ({cell['pss']:.0f}, {cell['own']:.0f})" for cell in cells)])
    rows += [[stage, *(f"{memory[name][stage]:.0f}" for name in memory)] for stage in ("most, start", "most, 20 turns", "tokens")]
    show("SmolLM2-135M-Instruct Q4_1", rows)
    if speed:
        kinds = ("reading", "writing")
        show("tokens/s, median (range)", [["", *speed], *([kind, *(speed[name][kind] for name in speed)] for kind in kinds)])
        for kind in kinds:
            print(f"small over as it comes, {kind}: {ratios(speed['small'][kind], speed['as it comes'][kind])}")


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--rounds", type=int, default=7, help="of speed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    memory: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, list[float]]] = {name: {"reading": [], "writing": []} for name in SERVERS}
    more = ("--threads", str(options.threads), "--set", "learn.worker=false")
    with scratch_home() as home, stopping() as started:
        for name, special in SERVERS.items():  # one after another: pages of one file would be shared
            server = started(start_ingle(home, *special, *more))
            memory[name] = stages(server)
            server.stop()
            say(f"{name}: {memory[name]}")
        if options.rounds:
            servers = {name: started(start_ingle(home, *special, *more)) for name, special in SERVERS.items()}
            for turn in range(options.rounds + 1):
                for name, server in servers.items():
                    for kind, value in speeds(server, turn).items():
                        values[name][kind] += [value] if turn else []  # the first is to warm up
    speed = {name: {kind: Figure(tuple(v)) for kind, v in kinds.items()} for name, kinds in values.items()} if options.rounds else {}
    report(memory, speed)
    small = memory["small"]
    met = {"idle": small["idle"]["rss"] <= BARS_MB["idle"], "most, 20 turns": small["most, 20 turns"] <= BARS_MB["most, 20 turns"]}
    tables = {name: {kind: figure.table() for kind, figure in kinds.items()} for name, kinds in speed.items()}
    finish("small", {"mb": memory, "tokens_per_s": tables, "bars_mb": BARS_MB, "met": met})


if __name__ == "__main__":
    main()
