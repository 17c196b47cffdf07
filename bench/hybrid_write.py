"""What a hybrid writes about a text that is longer than what it sees at once, untuned: summaries, beside its original's.

    python bench/hybrid_write.py --model smollm2-hybrid
    python bench/hybrid_write.py --model smollm2+hybrid --items 20

The suite `xsum`'s own request, for held-out articles whose message is longer than the hybrid's first tokens and window together, answered
greedily by the original, the hybrid, and the same windows without memories. ROUGE-L says how near an answer is to the reference; how many
of its runs of four words it had said before, how far it goes round in circles; and the loss on the original's answer, how far it is from
saying the same. All are paired by article with the original's. Answers that are finished are not given again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import finish, show
from hybrid import sight_of, variants
from ingle.core.errors import IngleError
from ingle.core.message import Message, Request
from ingle.core.progress import silent
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, open_weights
from ingle.home.place import Home
from ingle.measure.data_sets import Exercise
from ingle.measure.intervals import paired_bootstrap
from ingle.measure.measuring import Options, run_suite
from ingle.measure.subjects import choice_columns
from ingle.measure.suites import Suite, find_suite
from ingle.model.tokenizer import Tokenizer
from ingle.tuning.kept_model import subject_of
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/hybrid_write.py --model smollm2+hybrid --items 20
"""
Values = npt.NDArray[np.float64]
SIDES = ("original", "hybrid", "window")
FIGURES = {"rougeL": "ROUGE-L", "again": "runs of four words said before", "nats": "nats a token of the original's answer"}
_RUN = 4


def longer_than(seen: int, home: Home, tokenizer: Tokenizer) -> tuple[Suite, dict[str, str]]:
    """The suite of summaries, of articles whose message alone has more tokens than these, and their messages by the item's id;
    answers may go on for longer.
    """
    suite = find_suite("xsum")
    long = [one for one in suite.read(home, silent) if isinstance(one, Exercise) and len(tokenizer.encode(one.ask)) > seen]
    return replace(suite, max_tokens=100, read=lambda *_: long), {one.id: one.ask for one in long}


def said_again(text: str) -> float:
    """Share of a text's runs of four words that stood there before."""
    words = text.split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def measured(
    home: Home, suite: Suite, asked: Mapping[str, str], model: LanguageModel, items: int, answers: Sequence[str] = ()
) -> tuple[list[str], dict[str, Values]]:
    """What it answers, and each figure of each answer; `answers`: the original's, its own where there are none. An empty one of these has
    no loss.
    """
    subject = subject_of(model, lambda: False)
    rows = run_suite(home, suite, subject, Options(items)).rows
    written, tasks = [row["text"] for row in rows], []
    for row, answer in zip(rows, answers or written, strict=True):
        if ending := model.tokenizer.encode(answer):
            tasks.append((model.encode(Request(messages=(Message.of("user", asked[row["id"]]),))), [ending]))
    found = {number: -float(ending.mean()) for number, [ending] in subject.score(tasks)}
    figures = {
        "rougeL": [row["rougeL"] for row in rows],
        "again": [said_again(text) for text in written],
        "nats": [found[i] for i in sorted(found)],
    }
    return written, {name: np.array(values) for name, values in figures.items()}


def compared(before: Values, after: Values) -> dict[str, float]:
    """How much a figure is, and by how much it differs from the original's, paired."""
    change = paired_bootstrap(choice_columns(before.tolist()), choice_columns(after.tolist()))
    return {"value": float(after.mean()), "change": change.value, "low": change.interval.low, "high": change.interval.high}


def main() -> None:
    parser: argparse.ArgumentParser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2-hybrid", help="a hybrid that is kept in the real home")
    parser.add_argument("--items", type=int, default=64, help="articles")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "hybrid", help="where variants are kept")
    options = parser.parse_args()
    home = bench_home(options.home)
    kept = variants(home, options.model)
    models = {side: open_model(kept_source(home, kept[side])) for side in SIDES}
    seen = sum(sight_of(open_weights(home, kept["hybrid"]).config))
    suite, asked = longer_than(seen, home, models["original"].tokenizer)
    found: dict[str, dict[str, Values]] = {}
    answers: list[str] = []
    for side, model in models.items():
        written, found[side] = measured(home, suite, asked, model, options.items, answers)
        answers = answers or written
        say(f"{side}: written")
    n = len(found["original"]["again"])
    rows: list[list[object]] = [["", *FIGURES.values()]]
    result: dict[str, Any] = {}
    for side, figures in found.items():
        result[side] = {name: compared(found["original"][name], figures[name]) for name in FIGURES}
        rows.append([side, *(f"{f['value']:.4f}, {f['change']:+.4f} ({f['low']:+.4f} – {f['high']:+.4f})" for f in result[side].values())])
    show(f"summaries of {n} articles of more than {seen} tokens; and more than the original's, paired (95 %)", rows)
    finish("hybrid_write", {"model": options.model, "seen": seen, "n": n, "sides": result})


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
