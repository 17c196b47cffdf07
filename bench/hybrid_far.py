"""What a hybrid can still say of what lies far beyond its windows: pairs (associative recall, as MQAR asks it) and copies.

    python bench/hybrid_far.py --model smollm2+hybrid
    python bench/hybrid_far.py --contexts 4 --times 2,4

One context is as much news as a hybrid always sees (its first tokens), a passage of news, lines `place = word`, and news up to a distance
of 1 to 8 times its window. Then a fork of its state is asked for each line again (its value must be written greedily, letter by letter),
and one reads the passage's beginning again (share of the next tokens that are its likeliest ones, one by one, the true ones read on).
Beside the hybrid stand the original and the same windows without memories. Pairs and copies are among what memories learn from, of other
words and in other news.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from hybrid import sight_of, variants
from ingle.engine.backend import Segment, prefill
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.measure.data_sets import part, xsum_texts
from ingle.measure.intervals import bootstrap, paired_bootstrap
from ingle.measure.suites import XSUM_HELD_OUT
from ingle.model.tokenizer import Tokenizer
from servers import CACHE, say, start_bench
from tuned import bench_home

EXAMPLES = """  python bench/hybrid_far.py --model smollm2+hybrid
  python bench/hybrid_far.py --contexts 4 --times 2,4
"""
PASSAGE, BEGINNING, LINES = 64, 16, 8  # tokens of what is copied, how many of them are given again, and pairs
PLACES = ("Oslo", "Lima", "Cairo", "Delhi", "Paris", "Tokyo", "Dublin", "Athens", "Quebec", "Nairobi", "Berlin", "Lisbon")
WORDS = ("clock", "bridge", "garden", "lamp", "mill", "orchard", "piano", "stable", "tower", "well", "window", "violin")


@dataclass(frozen=True)
class Context:
    """One text, and what is asked of it."""

    ids: list[int]
    passage: list[int]
    pairs: tuple[tuple[list[int], list[int]], ...]
    """Each: the tokens of the question, and of the answer."""


def contexts(tokenizer: Tokenizer, texts: Sequence[str], count: int, ahead: int, distance: int, seed: int) -> Iterator[Context]:
    """The same for the same texts and seed: `ahead` tokens before the passage, `distance` behind the pairs."""
    draw = random.Random(f"{seed} {distance}")
    for _ in range(count):
        stream = [token for text in draw.sample(texts, 40) for token in tokenizer.encode(f"{text}\n\n")]
        first, passage, between = stream[:ahead], stream[ahead : ahead + PASSAGE], stream[ahead + PASSAGE : ahead + PASSAGE + distance]
        pairs = list(zip(draw.sample(PLACES, LINES), draw.sample(WORDS, LINES), strict=True))
        said = tokenizer.encode("\n\n" + "".join(f"{place} = {word}\n" for place, word in pairs) + "\n")
        asked = []
        for place, word in pairs:
            question = tokenizer.encode(f"\n\n{place} =")
            asked.append((question, tokenizer.encode(f"\n\n{place} = {word}")[len(question) :]))
        yield Context([*first, *passage, *said, *between], passage, tuple(asked))


def answered(model: LanguageModel, context: Context) -> tuple[int, int]:
    """(pairs that are right, tokens of the copy that are right)."""
    backend: Any = model.backend
    state = backend.new_state()
    prefill(backend, context.ids, state)
    right = sum(_follows(backend, state.fork(), question, answer) for question, answer in context.pairs)
    again = context.passage
    copied = _likeliest(backend, state.fork(), [*model.tokenizer.encode("\n\n"), *again[:-1]])[-(len(again) - BEGINNING) :]
    return right, int((np.array(copied) == np.array(again[BEGINNING:])).sum())


def _follows(backend: Any, state: Any, question: Sequence[int], answer: Sequence[int]) -> bool:
    found = _likeliest(backend, state, [*question, *answer[:-1]])
    return found[len(question) - 1 :] == list(answer)


def _likeliest(backend: Any, state: Any, ids: Sequence[int]) -> list[int]:
    """The likeliest next token after each of these."""
    [rows] = backend.forward([Segment(state, ids, "all")])
    return [int(token) for token in rows.argmax(1)]


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2+hybrid", help="a hybrid that is kept in the real home")
    parser.add_argument("--contexts", type=int, default=12, help="for each distance")
    parser.add_argument("--times", default="1,2,4,8", help="distances, in windows; within the context")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, default=CACHE.parent / "hybrid")
    options = parser.parse_args()
    home = bench_home(options.home)
    kept = {name: one for name, one in variants(home, options.model).items() if name in ("original", "hybrid", "window")}
    models = {name: open_model(kept_source(home, one)) for name, one in kept.items()}
    (sinks, window), tokenizer = sight_of(models["hybrid"].backend.config), models["hybrid"].tokenizer
    texts = [text.text for text in part(xsum_texts(home, lambda *_: None), "held_out", XSUM_HELD_OUT)]
    result: dict[str, Any] = {"model": options.model, "sinks": sinks, "window": window, "pairs": {}, "copies": {}}
    rows = {
        "pairs": [["distance", *models, "hybrid − window (95 %)", "p"]],
        "copies": [["distance", *models, "hybrid − window (95 %)", "p"]],
    }
    for times in map(int, options.times.split(",")):
        asked = list(contexts(tokenizer, texts, options.contexts, sinks, times * window, options.seed))
        found = {name: np.array([answered(model, context) for context in asked], float) for name, model in models.items()}
        for column, (what, of) in enumerate((("pairs", LINES), ("copies", PASSAGE - BEGINNING))):
            sides = {name: np.stack([values[:, column], np.full(len(asked), of)], 1) for name, values in found.items()}
            shares = {name: (side[:, 0].sum() / side[:, 1].sum(), bootstrap(side)) for name, side in sides.items()}
            gained = paired_bootstrap(sides["window"], sides["hybrid"])
            cells = [f"{value:.3f} ({interval.low:.3f} – {interval.high:.3f})" for value, interval in shares.values()]
            low, high = gained.interval.low, gained.interval.high
            rows[what].append([f"{times * window}", *cells, f"{gained.value:+.3f} ({low:+.3f} – {high:+.3f})", f"{gained.p:.4f}"])
            result[what][times * window] = {name: [value, i.low, i.high] for name, (value, i) in shares.items()}
            result[what][times * window]["gained"] = [gained.value, low, high, gained.p]
        say(f"{times} windows: done")
    show(f"values of pairs, {options.contexts} contexts of {LINES} each", rows["pairs"])
    show(f"tokens of a copy, {options.contexts} of {PASSAGE - BEGINNING} each", rows["copies"])
    finish("hybrid_far", result)


if __name__ == "__main__":
    main()
