"""What a hybrid writes about a text that is longer than its window, with nothing learnt for it: summaries, beside its original's.

    python bench/hybrid_write.py --model smollm2-hybrid
    python bench/hybrid_write.py --model smollm2+hybrid --items 20

The suite `xsum`'s own request, for held-out articles whose message is longer than the hybrid's window, answered greedily by the original,
the hybrid, and the same windows without memories. ROUGE-L says how near an answer is to the reference; how many of its runs of four words
it had said before, how far it goes round in circles. Both are paired by article with the original's.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import finish, show
from hybrid import variants, window_of
from ingle.core.errors import IngleError
from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.engine.opening import kept_source, open_model, open_weights
from ingle.home.fetch import silent
from ingle.home.place import Home
from ingle.measure.intervals import paired_bootstrap
from ingle.measure.items import Exercise, part
from ingle.measure.suites import find_suite
from ingle.measure.text_match import scores
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/hybrid_write.py --model smollm2+hybrid --items 20
"""
Values = npt.NDArray[np.float64]
SIDES = ("original", "hybrid", "window")
FIGURES = {"rougeL": "ROUGE-L", "again": "runs of four words said before"}
_RUN = 4
_MOST_TOKENS = 100


def articles(home: Home, model: LanguageModel, window: int, count: int) -> list[Exercise]:
    """The first held-out exercises whose message alone has more tokens than the window."""
    suite = find_suite("xsum")
    found: list[Exercise] = part(suite.read(home, silent), "held_out", suite.held_out)
    return [one for one in found if len(model.tokenizer.encode(one.ask)) > window][:count]


def write(model: LanguageModel, exercise: Exercise) -> str:
    """A greedy answer."""
    request = Request(messages=(Message.of("user", exercise.ask),), max_tokens=_MOST_TOKENS, sampling=Sampling(temperature=0.0, seed=0))
    return "".join(chunk.text for chunk in answer(model, request)).strip()


def said_again(text: str) -> float:
    """Share of a text's runs of four words that stood there before."""
    words = text.split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def measured(model: LanguageModel, chosen: list[Exercise]) -> dict[str, Values]:
    """Each figure of each answer."""
    answers = [write(model, one) for one in chosen]
    near = scores(("rougeL",), answers, [one.reference for one in chosen])["rougeL"]
    return {"rougeL": near, "again": np.array([said_again(text) for text in answers])}


def compared(before: Values, after: Values) -> dict[str, float]:
    """How much a figure is, and by how much it differs from the original's, paired."""
    ones = np.ones_like(before)
    change = paired_bootstrap(np.stack([before, ones], axis=1), np.stack([after, ones], axis=1))
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
    window = window_of(open_weights(home, kept["hybrid"]).config)
    chosen = articles(home, models["original"], window, options.items)
    found = {}
    for side, model in models.items():
        found[side] = measured(model, chosen)
        say(f"{side}: {len(chosen)} summaries written")
    rows: list[list[object]] = [["", *FIGURES.values()]]
    result: dict[str, Any] = {}
    for side, figures in found.items():
        result[side] = {name: compared(found["original"][name], figures[name]) for name in FIGURES}
        rows.append([side, *(f"{f['value']:.4f}, {f['change']:+.4f} ({f['low']:+.4f} – {f['high']:+.4f})" for f in result[side].values())])
    show(f"summaries of {len(chosen)} articles of more than {window} tokens; and more than the original's, paired (95 %)", rows)
    finish("hybrid_write", {"model": options.model, "window": window, "n": len(chosen), "sides": result})


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
