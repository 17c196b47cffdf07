"""Where in a hybrid an answer comes from: facts far back are asked for with its retrieval groups, its memories, or other groups off.

    python bench/explain_hybrid.py                              smollm2-hybrid, beside the model that it was made of
    python bench/explain_hybrid.py --facts 30 --part facts

Off means: these groups see no further than their window (480 tokens and the first 96). All sides share the same weights.

facts   a sentence (number, name, note) stands in a text of news, farther back than any window, and is asked for at the end. How many of
        the facts that the whole model says are no longer said, and how many nats their words lose. Two controls by chance, drawn anew for
        each fact: as many of the hybrid's other groups lose their memories; and in the original, where all groups see everything, the
        hybrid's retrieval groups or as many random others are given windows, or they alone are left without.
plain   the last quarter of ordinary texts of the same length: nats a token more
short   texts that a window holds: nothing may change, to the last bit
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.errors import IngleError
from ingle.core.state_layout import STEP_TOKENS
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.sight import Group, Reach, remembering_groups, retrieval_groups, widest_reach, without_sight
from ingle.engine.source import kept_source
from ingle.explain.groups import parts_of
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.measure.intervals import Interval, bootstrap, wilson
from ingle.measure.items import Text, part
from ingle.measure.recall import Planted, assemble, plant
from ingle.measure.sources import xsum_texts
from ingle.measure.suites import XSUM_HELD_OUT
from servers import say, start_bench

EXAMPLES = """  python bench/explain_hybrid.py --facts 30
  python bench/explain_hybrid.py --model smollm2+hybrid --part facts --part short
"""
PARTS = ("facts", "plain", "short")
BARS = {"retrieval": 0.9, "memories": 0.1, "by chance": 0.05}
"""Of facts said, share lost: at least; at most; at most (bar 9 of the design)."""
NEAR = 61  # `assemble` moves a fact by up to 60 tokens, to the end of a sentence
Side = Callable[[int], LanguageModel]
"""Gives the model for item number so and so."""


def hybrid_sides(model: LanguageModel, seed: int) -> dict[str, Side]:
    """The hybrid whole, and with parts off."""
    whole = {part.kind: part.model for part in parts_of(model, 0)}
    config = model.backend.config
    windows = without_sight(model, [*retrieval_groups(config), *remembering_groups(config)])
    sides: dict[str, Side] = {"hybrid": lambda _: model, "retrieval": lambda _: whole["retrieval"]}
    if "recurrent" in whole:
        sides |= {"memories": lambda _: whole["recurrent"], "retrieval and memories": lambda _: windows}
        sides["by chance"] = lambda number: parts_of(model, 1, seed + number)[-1].model
    return sides


def original_sides(original: LanguageModel, found: Sequence[Group], reach: Reach, seed: int) -> dict[str, Side]:
    """The transformer whole; with windows for the hybrid's retrieval groups, or as many others; and for all but these."""
    everything = retrieval_groups(original.backend.config)

    def others(number: int) -> list[Group]:
        left = [group for group in everything if group not in found]
        return random.Random(f"{seed} {number}").sample(left, len(found))

    def rest(kept: Sequence[Group]) -> list[Group]:
        return [group for group in everything if group not in kept]

    fixed = without_sight(original, found, reach), without_sight(original, rest(found), reach)
    return {
        "original": lambda _: original,
        "retrieval": lambda _: fixed[0],
        "by chance": lambda number: without_sight(original, others(number), reach),
        "all but retrieval": lambda _: fixed[1],
        "all but as many by chance": lambda number: without_sight(original, rest(others(number)), reach),
    }


def far_facts(texts: Sequence[Text], count: int, tokens: int, reach: Reach, seed: int) -> list[Planted]:
    """Facts that stand behind the first tokens that all groups see, and farther back than a window."""
    window, sinks = reach
    items = plant(texts, tokens, count, seed)
    first, last = (sinks + NEAR) / tokens, 1 - (window + NEAR + 80) / tokens  # 80: the question, the answer and the fact
    if first >= last:
        raise SystemExit(f"--tokens must be more than {window + sinks + 2 * NEAR + 80}, or no fact stands beyond the windows")
    return [replace(item, depth=first + item.depth * (last - first)) for item in items]


def told(model: LanguageModel, ids: Sequence[int], answer: Sequence[int]) -> tuple[bool, float]:
    """Whether the model says the answer greedily, and its log-probability in nats."""
    backend: Any = model.backend
    state = backend.new_state()
    for start in range(0, len(ids) - 1, STEP_TOKENS):
        backend.forward([Segment(state, ids[:-1][start : start + STEP_TOKENS], "none", model.adapter)])
    logits = backend.forward([Segment(state, [ids[-1], *answer[:-1]], "all", model.adapter)])[0].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    nats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    places = np.arange(len(answer)), np.array(answer)
    return bool((logits.argmax(axis=1) == places[1]).all()), float(nats[places].sum())


def compare(sides: dict[str, Side], items: Sequence[tuple[Sequence[int], Sequence[int]]], what: str) -> dict[str, np.ndarray]:
    """Each side's (said, nats) for each item, all sides of an item one after the other."""
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in sides}
    for number, (ids, answer) in enumerate(items):
        for name, side in sides.items():
            found[name].append(told(side(number), ids, answer))
        if number % 10 == 9:
            say(f"{what}: {number + 1} of {len(items)}; said: " + ", ".join(f"{n} {sum(s for s, _ in rows)}" for n, rows in found.items()))
    return {name: np.array(rows, float) for name, rows in found.items()}


def lost_facts(title: str, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of the facts that the whole model says: how many each side doesn't, and what their words lose."""
    whole, *others = found
    said = found[whole][:, 0] == 1
    n, whole_said = len(said), int(said.sum())
    rows: list[list[object]] = [["off", "said", "lost of those that the whole model says (95 %)", "nats that their words lose (95 %)"]]
    rows.append([f"nothing ({whole})", f"{whole_said} of {n}: {_range(whole_said / n, wilson(whole_said, n))}", "", ""])
    result: dict[str, Any] = {"n": n, "said": whole_said}
    for name in others if whole_said else ():
        gone, says = int((said & (found[name][:, 0] == 0)).sum()), int(found[name][:, 0].sum())
        falls = found[whole][said, 1] - found[name][said, 1]
        share, nats = wilson(gone, whole_said), bootstrap(np.stack([falls, np.ones(len(falls))], axis=1))
        rows.append([name, f"{says} of {n}", _range(gone / whole_said, share), _range(float(falls.mean()), nats, 2)])
        result[name] = {
            "said": says,
            "lost": [gone / whole_said, share.low, share.high],
            "nats": [float(falls.mean()), nats.low, nats.high],
        }
    show(title, rows)
    return result


def _range(value: float, interval: Interval, digits: int = 3) -> str:
    return f"{value:.{digits}f} ({interval.low:.{digits}f} – {interval.high:.{digits}f})"


def facts_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[Text], reach: Reach) -> dict[str, Any]:
    """Facts beyond the windows."""
    tokenizer = models["hybrid"]["hybrid"](0).tokenizer
    items = [assemble(tokenizer, item) for item in far_facts(texts, options.facts, options.tokens, reach, options.seed)]
    result: dict[str, Any] = {}
    for name, sides in models.items():
        result[name] = lost_facts(f"{name}: {len(items)} facts in {options.tokens:,} tokens", compare(sides, items, f"facts, {name}"))
    lost = {name: result["hybrid"][name]["lost"][0] for name in BARS if name in result["hybrid"]}
    result["held"] = {name: share >= BARS[name] if name == "retrieval" else share <= BARS[name] for name, share in lost.items()}
    return result


def plain_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[Text]) -> dict[str, Any]:
    """Ordinary texts: what the last quarter loses, per token."""
    stream = [token for text in texts for token in models["hybrid"]["hybrid"](0).tokenizer.encode(f"{text.text}\n\n")]
    size, last = options.tokens, min(256, options.tokens // 4)
    cut = [stream[start : start + size] for start in range(0, len(stream) - size, size)][: options.plain]
    result: dict[str, Any] = {}
    rows: list[list[object]] = [["model", "off", "nats a token more (95 %)"]]
    for name, sides in models.items():
        found = compare(sides, [(ids[:-last], ids[-last:]) for ids in cut], f"plain, {name}")
        whole, *others = found
        for other in others:
            falls = found[whole][:, 1] - found[other][:, 1]
            interval = bootstrap(np.stack([falls, np.full(len(falls), last)], axis=1))
            result.setdefault(name, {})[other] = [falls.mean() / last, interval.low, interval.high]
            rows.append([name, other, f"{falls.mean() / last:+.4f} ({interval.low:+.4f} – {interval.high:+.4f})"])
    show(f"{len(cut)} plain texts, the last {last} of {size:,} tokens", rows)
    return result


def short_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[Text], reach: Reach) -> dict[str, Any]:
    """Texts within a window: the largest change of an answer's log-probability, in nats."""
    tokenizer, size = models["hybrid"]["hybrid"](0).tokenizer, min(reach[0], 400)
    cut = [ids for text in texts if len(ids := tokenizer.encode(text.text)[:size]) >= 60][: options.plain]
    result: dict[str, Any] = {}
    for name, sides in models.items():
        found = compare(sides, [(ids[:-24], ids[-24:]) for ids in cut], f"short, {name}")
        whole, *others = found
        result[name] = {other: float(np.abs(found[whole][:, 1] - found[other][:, 1]).max()) for other in others}
    rows = [[name, other, value] for name, values in result.items() for other, value in values.items()]
    show(f"{len(cut)} texts within a window: largest change of any, nats", [["model", "off", "nats"], *rows])
    return result


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--model", default="smollm2-hybrid", help="a hybrid that is kept; the model it was made of must be kept too")
    parser.add_argument("--original", default="smollm2", help="the transformer that it was made of; empty = leave it out")
    parser.add_argument("--part", action="append", choices=PARTS, help="one or several; by default all")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=1024, help="of each text")
    parser.add_argument("--plain", type=int, default=24, help="texts of the parts plain and short")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home, parts = find_home(), options.part or PARTS
    hybrid = open_model(kept_source(home, get_kept(home, options.model)), threads=options.threads)
    config = hybrid.backend.config
    reach, found = widest_reach(config), retrieval_groups(config)
    if reach is None:
        raise SystemExit(f"{options.model} has no windows, so nothing can be switched off to them")
    models = {"hybrid": hybrid_sides(hybrid, options.seed)}
    if options.original:
        original = open_model(kept_source(home, get_kept(home, options.original)), threads=options.threads)
        models["original"] = original_sides(original, found, reach, options.seed)
    texts = part(xsum_texts(home, lambda *_: None), "held_out", XSUM_HELD_OUT)
    result: dict[str, Any] = {"model": options.model, "digest": hybrid.digest, "retrieval": found, "reach": reach, "tokens": options.tokens}
    if "short" in parts:
        result["short"] = short_part(options, models, texts, reach)
    if "facts" in parts:
        result["facts"] = facts_part(options, models, texts, reach)
        print("\n" + "; ".join(f"{name}: {'held' if held else 'NOT held'}" for name, held in result["facts"]["held"].items()))
    if "plain" in parts:
        result["plain"] = plain_part(options, models, texts)
    finish("explain_hybrid", result)


if __name__ == "__main__":
    try:
        main()
    except IngleError as error:
        raise SystemExit(str(error)) from error
