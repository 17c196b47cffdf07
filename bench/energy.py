"""The meter: what metering costs a step, and whether what answers are told adds up to what was taken.

Overhead: one scheduler in this process, one answer and `--streams` answers at once; every call of the meter is timed and set against the
time of all steps. Once as this machine is, and once with RAPL counters that are files, which are read as sysfs is.

Sums: a server in a process of its own, `--streams` streams at once; the joules that the answers were told, added up, against (a) the
server's own counter in /metrics and (b) a total that owes nothing to the server's meter: CPU-seconds from /proc/PID/stat, wall time and
resident memory, through the same model. Where this machine has counters, (b) is left out: they count others too.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from client import NO_END, ask, words
from harness import Figure, finish, show
from ingle.core.message import Chunk, Request, Sampling
from ingle.energy.meter import Meter, estimate, open_meter
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from ingle.home.kept import get_kept
from ingle.home.place import Home
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/energy.py
  python bench/energy.py --streams 4 --rounds 3 --tokens 64
"""
BAR_OVERHEAD, BAR_SUM = 0.01, 0.02
TICK = 100


def counters(folder: Path) -> Path:
    """A root with RAPL's files, and this machine's CPU."""
    for name, domain in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        at = folder / "sys" / "class" / "powercap" / name
        at.mkdir(parents=True)
        for file, text in (("name", domain), ("energy_uj", "123456789"), ("max_energy_range_uj", "262143328850")):
            (at / file).write_text(text + "\n")
    (folder / "proc").symlink_to("/proc")
    return folder


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The same call, whose seconds are added up."""

    def run(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            spent[0] += time.perf_counter() - began

    return run


def overhead(model: LanguageModel, meter: Meter, streams: int, tokens: int) -> tuple[float, float, float]:
    """(share of the steps' time that the meter takes, µs of it a step, ms of a step)."""
    scheduler, spent = Scheduler(Capacity(), PrefixCache(1 << 30), meter=meter), [0.0]
    step_meter: Any = scheduler.energy
    for name in ("begin", "share", "told"):
        setattr(step_meter, name, timed(getattr(step_meter, name), spent))
    inbox: SimpleQueue[Any] = SimpleQueue()
    for stream in range(streams):
        request = Request(
            prompt=words(40, f"{stream} {time.monotonic()}"), max_tokens=tokens, sampling=Sampling(logit_bias=((0, -100), (2, -100)))
        )
        scheduler.submit(Job(model, request, model.encode(request), inbox.put))
    left = streams
    while left:
        got = inbox.get(timeout=300)
        if not isinstance(got, Chunk):
            raise got
        left -= got.finish is not None
    scheduler.close()
    steps, busy = scheduler.counts.steps, scheduler.counts.busy_s
    return spent[0] / busy, spent[0] / steps * 1e6, busy / steps * 1e3


def used(server: Server) -> tuple[float, float, int]:
    """(CPU-seconds of the server, now, its resident bytes)."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK, time.perf_counter(), int(server.rss_mb() * 1e6)


def counted(server: Server) -> float:
    """Joules by the server's own counter."""
    lines = server.get("/metrics").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("ingle_energy_joules_total"))


async def streams_at_once(server: Server, count: int, turn: int, tokens: int) -> list[float]:
    """What each stream was told that it took. Half of them read a long prompt."""

    def body(stream: int) -> dict[str, Any]:
        seed = 1000 * turn + stream
        said = {"messages": [{"role": "user", "content": words(20 + 300 * (stream % 2), seed)}], "max_tokens": tokens - 8 * stream}
        return {**said, "seed": seed, "logit_bias": NO_END, "stream": True, "stream_options": {"include_usage": True}}

    replies = await asyncio.gather(*(ask(server, body(stream)) for stream in range(count)))
    return [reply.last("usage")["energy"]["joules"] for reply in replies]


def sums(home: Home, streams: int, rounds: int, tokens: int) -> tuple[Figure, Figure]:
    """Told over counted, and told over the total from outside."""
    inside, outside = [], []
    machine = open_meter().machine
    with stopping() as started:
        server = started(start_ingle(home))
        for turn in range(rounds + 1):
            before, (cpu_s, began, _) = counted(server), used(server)
            told = asyncio.run(streams_at_once(server, streams, turn, tokens))
            cpu_after, ended, resident = used(server)
            total = estimate(machine, cpu_after - cpu_s, ended - began, resident).joules
            if turn:  # the first is to warm up
                inside.append(sum(told) / (counted(server) - before))
                outside.append(sum(told) / total)
                say(f"round {turn} of {rounds}: {sum(told):.1f} J told, {total:.1f} J from outside")
    return Figure(tuple(inside)), Figure(tuple(outside))


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    with scratch_home() as home, tempfile.TemporaryDirectory() as folder:
        model = open_model(kept_source(home, get_kept(home, "smollm2")), "auto", None)
        kinds = {"this machine": open_meter(), "with two counters": Meter(counters(Path(folder)))}
        costs: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
        for turn in range(options.rounds + 1):
            for name, meter in kinds.items():
                for streams in (1, options.streams):
                    cost = overhead(model, meter, streams, options.tokens)
                    if turn:
                        costs.setdefault((name, streams), []).append(cost)
            say(f"overhead, round {turn} of {options.rounds}")
        del model
        inside, outside = sums(home, options.streams, options.rounds, options.tokens)
    table = {key: [Figure(tuple(column)) for column in zip(*values, strict=True)] for key, values in costs.items()}
    rows: list[list[object]] = [["meter", "streams", "share of a step", "µs a step", "ms of a step"]]
    rows += [[name, streams, *figures] for (name, streams), figures in table.items()]
    show(f"What metering costs, median (range) of {options.rounds} runs", rows)
    measured = open_meter().rapl.state == "readable"
    rows = [["joules that answers were told, added up, over", "ratio"], ["the server's own counter", inside]]
    rows += [] if measured else [["CPU-seconds, time and memory from outside, by the model", outside]]
    show(f"{options.streams} streams at once, {options.rounds} runs", rows)
    worst = max(figures[0].median for figures in table.values())
    ratio = inside if measured else outside
    finish(
        "energy",
        {
            "overhead": {f"{name}, {streams}": figures[0].table() for (name, streams), figures in table.items()},
            "told_over_counted": inside.table(), "told_over_outside": None if measured else outside.table(),
            "bars": {"overhead": BAR_OVERHEAD, "sum": BAR_SUM},
        },
    )  # fmt: skip
    sys.exit(worst > BAR_OVERHEAD or abs(ratio.median - 1) > BAR_SUM or abs(inside.median - 1) > BAR_SUM)


if __name__ == "__main__":
    main()
