"""Answers with drafts and without: the same tokens, and how much sooner.

Each request is answered twice by each of the two ways, in turn; whoever comes first changes from request to request. What is compared is
the time of writing (the prompt is read the same way). Tasks: summaries of XSum's documents, questions of a conversation, and a text to be
corrected, which is mostly copied. Then many at once, by the scheduler, as the server does it. Joules are those of the same time, by Ingle's
own meter, for both ways alike: where there are no counters they are worked out from CPU-seconds, time and memory.

python bench/draft.py [--requests 24] [--tokens 160] [--temperature 0] [--at-once 8] [--tasks summary chat correct]
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from harness import Figure, finish, show
from ingle.core.energy import NOTHING, Energy
from ingle.core.message import Chunk, Message, Request, Sampling, Usage
from ingle.energy.meter import open_meter
from ingle.engine.answer import Session, answer
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import Opener
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from ingle.engine.speculative import StepTimer
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from model import documents, smollm2

BAR = 0.97
"""No task may be slower than this share of its speed without."""
QUESTIONS = (
    "What is a hearth?", "Write a short poem about the sea.", "How do I boil an egg?", "Explain gravity to a child.",
    "Name ten animals and where they live.", "Write a Python function that adds two numbers.", "Tell a story about a fox.",
    "Why is the sky blue?", "Give me three tips for sleeping better.", "What is the capital of France, and what is it known for?",
    "Write an email asking for a day off.", "How does a bicycle stay upright?", "What should I cook with rice and eggs?",
    "Describe autumn in two sentences.", "What is the difference between weather and climate?", "Translate to French: the fire is lit.",
    "List the planets.", "How do I learn to swim?", "What is a prime number?", "Write a slogan for a bakery.",
    "Explain how a bill becomes law.", "What are the rules of chess?", "Who was Ada Lovelace?", "How do plants drink?",
)  # fmt: skip


def prompts(task: str, count: int) -> list[str]:
    """What is asked."""
    if task == "chat":
        return [QUESTIONS[i % len(QUESTIONS)] for i in range(count)]
    texts, _ = documents(count)
    if task == "summary":
        return [f"Summarise this article in three sentences:\n\n{text[:2000]}" for text in texts]
    return [f"Correct the spelling of this text, and change nothing else:\n\n{text[:600]}" for text in texts]


def requests(task: str, count: int, tokens: int, temperature: float) -> list[Request]:
    """One for each prompt, with its own seed."""
    return [
        Request((Message.of("user", text),), max_tokens=tokens, sampling=Sampling(temperature=temperature, seed=seed))
        for seed, text in enumerate(prompts(task, count))
    ]


def written(model: LanguageModel, request: Request, pace: StepTimer, drafts: bool) -> tuple[list[int], Usage, Energy]:
    """The tokens, and what they took; joules from the first one on."""
    meter, chunks = open_meter(), list[Chunk]()
    began = meter.begin()
    for chunk in answer(model, request, Session(model.backend.new_state(), pace=pace), drafts=drafts):
        began = began if chunks else meter.begin()
        chunks.append(chunk)
    usage = chunks[-1].usage
    assert usage is not None
    return [token for chunk in chunks for token in chunk.tokens], usage, meter.between(began, meter.read())


def alone(model: LanguageModel, asked: list[Request]) -> dict[str, Any]:
    """Each request by itself: tokens/s with drafts over tokens/s without."""
    pace, same, ratios, usages = StepTimer(), 0, list[float](), list[Usage]()
    seconds, energy = {True: 0.0, False: 0.0}, {True: NOTHING, False: NOTHING}
    for number, request in enumerate(asked):
        took, tokens = {True: 0.0, False: 0.0}, dict[bool, list[int]]()
        for turn in range(4):
            drafts = (turn + number + turn // 2) % 2 == 0  # with, without, without, with
            tokens[drafts], usage, joules = written(model, request, pace, drafts)
            took[drafts] += usage.decode_s
            energy[drafts] += joules
            usages += [usage] if drafts else []
        same += tokens[True] == tokens[False]
        ratios.append(took[False] / took[True])
        seconds = {drafts: seconds[drafts] + took[drafts] for drafts in seconds}
        print(f"request {number + 1} of {len(asked)}: {ratios[-1]:.2f}", file=sys.stderr)
    drafted, accepted, count = (sum(getattr(usage, name) for usage in usages) for name in ("drafted", "accepted", "completion_tokens"))
    return {
        "identical": same, "requests": len(asked), "ratio": Figure(tuple(ratios)), "together": seconds[False] / seconds[True],
        "tokens_per_s": count / seconds[True], "without": count / seconds[False], "drafted": drafted / count, "accepted": accepted / count,
        "joules": energy[True].joules / energy[False].joules, "source": energy[True].source,
    }  # fmt: skip


def at_once(model: LanguageModel, asked: list[Request], places: int, drafts: bool) -> tuple[dict[int, list[int]], float, Energy]:
    """The tokens of each request, and the seconds and joules that all took together."""
    capacity = Capacity(places, places, len(asked), len(asked), drafts=drafts)
    scheduler, arrived = Scheduler(capacity, PrefixCache(1 << 28)), SimpleQueue[tuple[int, Any]]()
    tokens: dict[int, list[int]] = {number: [] for number in range(len(asked))}
    meter = open_meter()
    began, first, left = time.perf_counter(), meter.begin(), len(asked)
    for number, request in enumerate(asked):
        scheduler.submit(Job(model, request, model.encode(request), lambda chunk, number=number: arrived.put((number, chunk))))  # type: ignore[misc]
    while left:
        number, chunk = arrived.get()
        if not isinstance(chunk, Chunk):
            raise SystemExit(str(chunk))
        tokens[number] += chunk.tokens
        left -= chunk.finish is not None
    seconds, joules = time.perf_counter() - began, meter.between(first, meter.read())
    scheduler.close()
    return tokens, seconds, joules


def together(model: LanguageModel, asked: list[Request], places: int, rounds: int) -> dict[str, Any]:
    """Many at once, prompts included: speed with drafts over speed without, in alternating rounds."""
    ratios, same, energy = list[float](), 0, {True: NOTHING, False: NOTHING}
    for turn in range(rounds):
        found = {drafts: at_once(model, asked, places, drafts) for drafts in ((True, False) if turn % 2 else (False, True))}
        ratios.append(found[False][1] / found[True][1])
        energy = {drafts: energy[drafts] + found[drafts][2] for drafts in energy}
        same += sum(found[True][0][number] == found[False][0][number] for number in range(len(asked)))
        print(f"round {turn + 1} of {rounds}: {ratios[-1]:.2f}", file=sys.stderr)
    return {
        "identical": same, "requests": rounds * len(asked), "ratio": Figure(tuple(ratios)), "together": statistics.median(ratios),
        "joules": energy[True].joules / energy[False].joules, "source": energy[True].source,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tasks", nargs="+", default=["summary", "chat", "correct"])
    given = parser.parse_args()
    smollm2()  # says so if it is not kept
    home = find_home()
    model = Opener(cores=Cores(2))(home, get_kept(home, "smollm2"))
    warm = Request((Message.of("user", "Hello"),), max_tokens=8)
    written(model, replace(warm, sampling=Sampling(seed=1)), StepTimer(), True)
    results: dict[str, dict[str, Any]] = {}
    for task in given.tasks:
        asked = requests(task, given.requests, given.tokens, given.temperature)
        results[task] = alone(model, asked)
        if given.at_once:
            results[f"{task}, {given.at_once} at once"] = together(model, asked[: 2 * given.at_once], given.at_once, given.rounds)
    rows: list[list[object]] = [
        ["task", "identical", "with ÷ without", "all together", "joules", "tokens/s", "without", "drafted", "accepted"]
    ]
    for task, r in results.items():
        speeds = [f"{r[name]:.0f}" if name in r else "" for name in ("tokens_per_s", "without")]
        shares = [f"{r[name]:.2f} a token" if name in r else "" for name in ("drafted", "accepted")]
        rows.append(
            [task, f"{r['identical']} of {r['requests']}", r["ratio"], f"{r['together']:.2f}", f"{r['joules']:.2f}", *speeds, *shares]
        )
    show(f"SmolLM2-135M-Instruct Q4_1, 2 threads, temperature {given.temperature}, medians (range) over requests or rounds", rows)
    table = {task: {k: v.table() if isinstance(v, Figure) else v for k, v in r.items()} for task, r in results.items()}
    passed = all(r["identical"] == r["requests"] and r["together"] >= BAR for r in results.values())
    print(f"bar: the same tokens always, and no task below {BAR}: {'met' if passed else 'MISSED'}")
    finish("draft", {"temperature": given.temperature, "tasks": table, "bar": BAR, "passed": passed})


if __name__ == "__main__":
    main()
