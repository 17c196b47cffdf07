"""What the scope recognises of other wordings, and what it wrongly takes for one: on questions that nobody trained or fitted on.

All corrections of a language are taught at once. Each of their paraphrases is asked, and each near-miss: the same relation of another
thing, another relation of the same thing, a question close in its words, one that everybody knows the answer to. It acts from ACTS on, and
asks back from ASKS on. No model answers here: see bench/adapt.py. The last line is JSON.

    python bench/adapt_recognised.py [--level 0.7] [--show]
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapt_data import Correction, read
from harness import finish, show
from ingle.adapt.scope import ACTS, ASKS, score
from ingle.measure.intervals import wilson


def language_of(one: Correction) -> str:
    """What stands behind its kind."""
    return one.kind.rpartition(" ")[2] if " " in one.kind else "en"


def nearest(text: str, taught: Sequence[Correction]) -> tuple[float, Correction]:
    """The highest score, and whose it is."""
    scores = score(text, [one.question for one in taught])
    best = int(np.argmax(scores))
    return float(scores[best]), taught[best]


def judged(taught: Sequence[Correction], level: float, tell: bool) -> dict[str, Any]:
    """Shares, each with its interval."""
    found, near = [], []
    for one in taught:
        for text in one.paraphrases:
            value, which = nearest(text, taught)
            found.append((value, which is one))
            if tell and (value < level or which is not one):
                print(f"- {value:.2f} {one.question} | {text}")
        for text in one.near_misses:
            value, which = nearest(text, taught)
            near.append(value)
            if tell and value >= level:
                print(f"+ {value:.2f} {which.question} | {text}")

    def share(hits: Sequence[bool]) -> dict[str, float]:
        interval = wilson(sum(hits), len(hits))
        return {"share": sum(hits) / len(hits), "low": interval.low, "high": interval.high, "n": len(hits)}

    return {
        "recognised": share([value >= level and right for value, right in found]),
        "asked back": share([ASKS <= value < level and right for value, right in found]),
        "near-misses taken": share([value >= level for value in near]),
        "near-misses asked back": share([ASKS <= value < level for value in near]),
    }  # fmt: skip


def main() -> None:
    """Prints a table by language."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", type=float, default=ACTS)
    parser.add_argument("--show", action="store_true", help="Print what was missed (-) and what was wrongly taken (+).")
    asked = parser.parse_args()
    every = [*read("test").corrections, *read("test_other").corrections]
    result = dict[str, Any]()
    for language in dict.fromkeys(map(language_of, every)):
        result[language] = judged([one for one in every if language_of(one) == language], asked.level, asked.show)
    rows = [["", *next(iter(result.values()))]]
    for name, table in result.items():
        rows.append([name, *(f"{one['share']:.3f} ({one['low']:.3f} – {one['high']:.3f}, n = {one['n']})" for one in table.values())])
    show(f"what acts from a score of {asked.level}", rows)
    finish("adapt_recognised", {"level": asked.level, **result})


if __name__ == "__main__":
    main()
