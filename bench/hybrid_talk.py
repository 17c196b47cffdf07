"""A conversation of some 7,000 tokens in the terminal: a hybrid, and the original that it was made of.

    python bench/hybrid_talk.py --model smollm2-hybrid --original smollm2

`ingle chat` is told of a number, then given reports of news one after the other, each with a question, and at last asked for the
number again and for its /stats; in turn, a fresh process each time. Answers are greedy, have 60 tokens at the most, and are not the
same: how much of them could be drafted (these models repeat themselves) is in the speed. For plain decoding see hybrid.py.
"""

import re
import subprocess
from typing import Any

from harness import alternate, finish, ratios, show
from ingle.home.place import find_home
from ingle.measure.data_sets import part, xsum_texts
from ingle.measure.suites import XSUM_HELD_OUT
from servers import ingle_command, start_bench

EXAMPLES = "  python bench/hybrid_talk.py --model smollm2-hybrid --original smollm2"
NUMBER = "48213"
FIGURES = {
    "all answers, tokens/s, drafts included": r"all of them +\d+ answers, [\d,]+ tokens at ([\d,]+) tokens/s",
    "reading, tokens/s": r"its prompt +\d+ tokens read at ([\d,]+) tokens/s",
    "joules, the whole talk (estimated)": r"energy +([\d.]+) J",
    "context, tokens": r"context +([\d,]+) of",
    "state, MB": r"([\d.]+) MB of state",
    "resident, MB": r"memory +([\d.]+) MB",
}


def messages(reports: int) -> list[str]:
    """What the user says, a line each."""
    texts = (re.sub(r"\s+", " ", text.text) for text in part(xsum_texts(find_home(), lambda *_: None), "held_out", XSUM_HELD_OUT))
    chosen = [text for text in texts if 700 < len(text) < 1500][:reports]
    asked = [f"Here is a report: {text} What is it about? One sentence." for text in chosen]
    return [
        f"Hello. My allotment has the number {NUMBER}. Please keep that in mind.",
        *asked,
        "What is the number of my allotment?",
        "/stats",
    ]


def talk(model: str, said: list[str]) -> dict[str, float]:
    """The figures of /stats, and whether the number was said again at the end."""
    command = [ingle_command(), "chat", model, "--temperature", "0", "--max-tokens", "60", "--no-memory"]
    done = subprocess.run(command, input="\n".join(said) + "\n", text=True, capture_output=True, check=True)
    found = {name: float(re.findall(pattern, done.stdout + done.stderr)[-1].replace(",", "")) for name, pattern in FIGURES.items()}
    return found | {"number said again": float(NUMBER in done.stdout.rpartition("last answer")[0][-300:])}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2-hybrid")
    parser.add_argument("--original", default="smollm2")
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    said, talks = messages(options.reports), dict[str, list[dict[str, float]]]()

    def run(name: str) -> float:
        talks.setdefault(name, []).append(talk(name, said))
        return talks[name][-1]["joules, the whole talk (estimated)"]

    names = (options.model, options.original)
    joules = alternate(options.rounds, {name: (lambda n=name: run(n)) for name in names})
    rows: list[list[object]] = [["", *names]]
    middle: dict[str, dict[str, Any]] = {}
    for figure in talks[options.model][0]:
        sides = {name: sorted(one[figure] for one in talks[name][1:]) for name in names}
        rows.append([figure, *(f"{side[len(side) // 2]:g} ({side[0]:g} – {side[-1]:g})" for side in sides.values())])
        middle[figure] = {name: [side[len(side) // 2], side[0], side[-1]] for name, side in sides.items()}
    show(f"after a talk of {len(said) - 1} turns", rows)
    against = ratios(joules[options.model], joules[options.original])
    print(f"joules, {options.model} ÷ {options.original}: {against}")
    finish("hybrid_talk", {"figures": middle, "joules": against.table()})


if __name__ == "__main__":
    main()
