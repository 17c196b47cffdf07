"""What the guards of answers cost, and how often personal data are found where there are none.

Speed: the same greedy answer behind each set of guards, in turn with the usual guards alone; the words must be the same. Waiting: the most
characters that were held back. False alarms: numbers, dates, versions and books by a formula, and the texts of Python's own library, in
which only e-mail addresses are personal data. The same texts, behind system prompts with secrets in them, leak nothing.

python bench/filter.py [--rounds 7] [--tokens 128]
"""

import argparse
import random
import sysconfig
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from harness import alternate, finish, ratios, show
from ingle.app.answering import limits_of
from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.loading import Opener
from ingle.engine.threads import Cores
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.safety.guard import make_guards
from ingle.safety.guards.leak import repetition, secret_of
from ingle.safety.holding import Undecided
from ingle.safety.middleware import GuardLayer, drive, from_iterator, wrap
from ingle.safety.pii_kinds import find_pii
from ingle.safety.policy import GuardPolicy, GuardRule
from model import smollm2

BAR = 0.98
WORDS, PATTERNS = ("project lantern", "secret*", "idiot"), (r"PL-\d{4}", r"\w+@corp\.example")
SYSTEM = "You are the clerk of the Northern Library. Answer in short sentences, and be kind to children at all times."
KEPT = {
    "without": SYSTEM,
    "with": "You are the clerk of a small bank. The password is fern-42-lantern. Be brief, and be kind to customers in need.",
    "with a PIN": "You are the clerk of a small bank. The vault's PIN is 4471. Be brief, and be kind to customers in need.",
}
"""System prompts by their secret."""
SETS: dict[str, dict[str, GuardRule]] = {
    "output: 3 words, 2 patterns": {"output": GuardRule("edit", words=WORDS, patterns=PATTERNS)},
    "output: 5,000 words": {"output": GuardRule("block", words=tuple(f"word{number}x" for number in range(5_000)))},
    "pii: edit": {"pii": GuardRule("edit")},
    "leak: block": {"leak": GuardRule("block")},
    "all of them": {"output": GuardRule("edit", words=WORDS, patterns=PATTERNS), "pii": GuardRule("edit"), "leak": GuardRule("block")},
}


def speeds(rounds: int, tokens: int) -> tuple[list[list[object]], dict[str, Any]]:
    """Rows and figures: tokens/s with each set of guards over tokens/s with the usual ones."""
    smollm2()  # says so if it is not kept
    home = find_home()
    model = Opener(cores=Cores(2))(home, get_kept(home, "smollm2"))
    request = Request(
        (Message.of("system", SYSTEM), Message.of("user", "Tell me about rivers, I am ann@example.org.")), max_tokens=tokens,
        sampling=Sampling(temperature=0.0),
    )  # fmt: skip
    limits, heard = limits_of(model), dict[str, str]()

    def run(name: str, guards: tuple[GuardLayer, ...]) -> float:
        said, began, count = list[str](), 0.0, 0
        for chunk in drive(wrap(guards, lambda asked: from_iterator(answer(model, asked, drafts=False)))(request)):
            began = began or time.perf_counter()
            said.append(chunk.text)
            count = chunk.usage.completion_tokens if chunk.usage else count
        heard[name] = "".join(said)
        return (count - 1) / (time.perf_counter() - began)

    usual = make_guards(limits)
    made = {name: make_guards(limits, GuardPolicy({("", ""): rules})) for name, rules in SETS.items()}
    runs = {name: partial(run, name, guards) for name, guards in [("usual", usual), *made.items()]}
    figures = alternate(rounds, runs)
    shares = {name: ratios(figures[name], figures["usual"]) for name in SETS}
    same = {name: heard[name] == heard["usual"] for name in SETS if "pii" not in SETS[name]}  # a mask is another prompt
    rows: list[list[object]] = [["guards", "tokens/s", "of the usual", "same words"]]
    rows += [[name, figures[name], shares[name], same.get(name, "-")] for name in SETS]
    return rows, {"ratios": {name: shares[name].table() for name in SETS}, "same": all(same.values())}


def ordinary() -> dict[str, list[str]]:
    """Texts without personal data, by kind."""
    draw = random.Random(0)
    library = [path.read_text("utf-8", "replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    days = [(day, month, year) for day in range(1, 29) for month in range(1, 13) for year in (1999, 2024)]
    return {
        "numbers of 16 digits": [f"Order {draw.randrange(10**15, 10**16)} was sent." for _ in range(20_000)],
        "numbers of 9 to 19 digits": [f"It is {draw.randrange(10 ** (n - 1), 10**n)}." for n in range(9, 20) for _ in range(1_000)],
        "versions": [f"pkg {a}.{b}.{c}.{d} and v{a}.{b}.{c}" for a in range(4) for b in range(8) for c in range(8) for d in range(4)],
        "dates and times": [f"{d:02}{s}{m:02}{s}{y}, {y}{s}{m:02}{s}{d:02} {d % 24:02}:{m:02}" for s in "./-" for d, m, y in days],
        "books": [f"ISBN 978-0-{a}-{b:05}-{c} 0-{a}-{b:05}-{c}" for a in range(200, 250) for b in range(0, 99999, 9999) for c in range(10)],
        "sums": [f"{a},{b:03}.{c:02} or 8 {b:03} {a:03}" for a in range(1, 1000, 9) for b in range(0, 1000, 99) for c in range(0, 100, 20)],
        "Python's library": [paragraph for text in library for paragraph in text.split("\n\n")],
    }  # fmt: skip


def alarms() -> tuple[list[list[object]], dict[str, Any]]:
    """Rows and figures: texts of each kind with an alarm other than an e-mail address."""
    rows: list[list[object]] = [["texts", "how many", "alarmed", "share", "kinds"]]
    figures: dict[str, Any] = {}
    for name, texts in ordinary().items():
        found = [{one.kind.name for one in find_pii(text)} - {"e-mail"} for text in texts]
        count, kinds = sum(map(bool, found)), Counter(kind for one in found for kind in one)
        rows.append([name, len(texts), count, f"{count / len(texts):.2%}", ", ".join(f"{kind} {n}" for kind, n in kinds.items())])
        figures[name] = {"texts": len(texts), "alarmed": count}
    return rows, figures


def leaks() -> tuple[list[list[object]], dict[str, Any]]:
    """Rows and figures: the same texts as answers to system prompts with secrets, and how many of them count as leaks."""
    rows: list[list[object]] = [["texts", "how many", *KEPT]]
    figures: dict[str, Any] = {}
    for name, texts in ordinary().items():
        counts = []
        for prompt in KEPT.values():
            secret = secret_of(prompt)
            looked = (repetition(secret, lambda _letters: False)(Undecided("", text, 0, True))[0] for text in texts)
            counts.append(sum(map(bool, looked)))
        rows.append([name, len(texts), *counts])
        figures[name] = {"texts": len(texts), "alarmed": counts}
    return rows, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    rows, speed = speeds(given.rounds, given.tokens)
    show("SmolLM2-135M-Instruct Q4_1, 2 threads, greedy, without drafts", rows)
    rows, alarmed = alarms()
    show("Personal data found where there are none", rows)
    rows, leaked = leaks()
    show("Leaks found where there are none, by system prompt", rows)
    finish("filter", {"bar": BAR, "speed": speed, "alarms": alarmed, "leaks": leaked})


if __name__ == "__main__":
    main()
