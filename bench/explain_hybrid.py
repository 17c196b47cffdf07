"""Where in a hybrid an answer comes from: facts far back are asked for with its retrieval groups, its memories, or other groups off.

    python bench/explain_hybrid.py                              smollm2-hybrid, beside the model that it was made of
    python bench/explain_hybrid.py --texts 5 --part facts

Off means: these groups see no further than their window (480 tokens and the first 96). All sides share the same weights.

facts   six facts (numbers, names, notes) stand in a text of news, farther back than any window, and each is asked for at the end, from a
        fork. How many of the facts that the whole model says are no longer said, and how many nats their words lose. Controls by chance,
        drawn anew for each text: as many of the hybrid's other groups lose their memories; and in the original, where all groups see
        everything, the hybrid's retrieval groups or as many random others are given windows, or all but these others. (All but the
        retrieval groups is the hybrid without its memories.)
plain   the end of ordinary texts of the same length: nats a token more
short   texts that a window holds: nothing may change, to the last bit
"""

import argparse
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.errors import IngleError
from ingle.core.state import STEP_TOKENS
from ingle.engine.backend import Segment
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.windowed import Group, Reach, remembering_groups, retrieval_groups, widest_reach, without_sight
from ingle.explain.groups import parts_of
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.measure.data_sets import part, xsum_texts
from ingle.measure.intervals import Interval, bootstrap, wilson
from ingle.measure.suites import KINDS, XSUM_HELD_OUT, make_fact
from ingle.model.tokenizer import Tokenizer
from servers import say, start_bench

EXAMPLES = """  python bench/explain_hybrid.py --texts 5
  python bench/explain_hybrid.py --model smollm2+hybrid --part facts --part short
"""
PARTS = ("facts", "plain", "short")
BARS = {"retrieval": 0.9, "memories": 0.1, "by chance": 0.05}
"""Of facts said, share lost: at least; at most; at most (bar 9 of the design)."""
FACTS, NEAR = 6, 30  # in a text; by so many tokens a fact may move, to the end of a sentence
Asked = tuple[Sequence[int], Sequence[int]]
"""A question and its answer."""
Item = tuple[Sequence[int], Sequence[Asked]]
"""A text, and what is asked behind it."""
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
    """The transformer whole; with windows for the hybrid's retrieval groups, for as many others, and for all but these others."""
    everything = retrieval_groups(original.backend.config)

    def others(number: int) -> list[Group]:
        left = [group for group in everything if group not in found]
        return random.Random(f"{seed} {number}").sample(left, len(found))

    def rest(kept: Sequence[Group]) -> list[Group]:
        return [group for group in everything if group not in kept]

    fixed = without_sight(original, found, reach)
    return {
        "original": lambda _: original,
        "retrieval": lambda _: fixed,
        "by chance": lambda number: without_sight(original, others(number), reach),
        "all but as many by chance": lambda number: without_sight(original, rest(others(number)), reach),
    }


def far_texts(tokenizer: Tokenizer, texts: Sequence[str], count: int, tokens: int, reach: Reach, seed: int) -> list[Item]:
    """News with facts behind the first tokens that all groups see, and farther back than a window from what is asked."""
    window, sinks = reach
    first, last = sinks + NEAR, tokens - window - NEAR
    if last - first < FACTS * 2 * NEAR:
        raise SystemExit(
            f"--tokens must be at least {window + sinks + 2 * NEAR * (FACTS + 1)}, or the facts find no room beyond the windows"
        )
    items = []
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        facts = [make_fact(KINDS[i % len(KINDS)], draw) for i in range(FACTS)]
        while len({fact.asked for fact in facts}) < FACTS:
            facts = [make_fact(KINDS[i % len(KINDS)], draw) for i in range(FACTS)]
        draw.shuffle(facts)
        said = [tokenizer.encode(f" {fact.said}") for fact in facts]
        stream = [token for text in draw.sample(texts, 30) for token in tokenizer.encode(f"{text}\n\n")][: tokens - sum(map(len, said))]
        places = [_sentence_end(tokenizer, stream, first + (last - first - sum(map(len, said))) * i // FACTS) for i in range(FACTS)]
        assert min(places) >= sinks and len(stream) - max(places) > window, "each fact must have left the windows"
        for place, sentence in sorted(zip(places, said, strict=True), reverse=True):
            stream[place:place] = sentence
        asked = [tokenizer.encode(f"\n\n{fact.asked}") for fact in facts]
        answers = [tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(ask) :] for fact, ask in zip(facts, asked, strict=True)]
        items.append((stream, list(zip(asked, answers, strict=True))))
    return items


def _sentence_end(tokenizer: Tokenizer, ids: Sequence[int], place: int) -> int:
    """The first end of a sentence from a place on; the place itself if there is none near."""
    ends = (i for i in range(place, place + NEAR) if tokenizer.token_bytes(ids[i - 1]).endswith(b"."))
    return next(ends, place)


def told(model: LanguageModel, ids: Sequence[int], asked: Sequence[Asked]) -> list[tuple[bool, float]]:
    """For each question whether the model answers it so, greedily, and the answer's log-probability in nats."""
    backend: Any = model.backend
    state = backend.new_state()
    for start in range(0, len(ids), STEP_TOKENS):
        backend.forward([Segment(state, ids[start : start + STEP_TOKENS], "none", model.adapter)])
    found = []
    for question, answer in asked:
        [rows] = backend.forward([Segment(state.fork(), [*question, *answer[:-1]], "all", model.adapter)])
        logits = rows[len(question) - 1 :].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        nats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        found.append((bool((logits.argmax(axis=1) == np.array(answer)).all()), float(nats[np.arange(len(answer)), answer].sum())))
    return found


def compare(sides: dict[str, Side], items: Sequence[Item], what: str) -> dict[str, np.ndarray]:
    """Each side's (said, nats) for each question, all sides of a text one after the other."""
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in sides}
    for number, (ids, asked) in enumerate(items):
        for name, side in sides.items():
            found[name] += told(side(number), ids, asked)
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


def facts_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[str], reach: Reach) -> dict[str, Any]:
    """Facts beyond the windows."""
    tokenizer = models["hybrid"]["hybrid"](0).tokenizer
    items = far_texts(tokenizer, texts, options.texts, options.tokens, reach, options.seed)
    result: dict[str, Any] = {}
    for name, sides in models.items():
        result[name] = lost_facts(
            f"{name}: {FACTS} facts in each of {len(items)} texts of {options.tokens:,} tokens", compare(sides, items, f"facts, {name}")
        )
    lost = {name: result["hybrid"][name]["lost"][0] for name in BARS if name in result["hybrid"]}
    result["held"] = {name: share >= BARS[name] if name == "retrieval" else share <= BARS[name] for name, share in lost.items()}
    return result


def plain_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[str]) -> dict[str, Any]:
    """Ordinary texts: what the last quarter loses, per token."""
    stream = [token for text in texts for token in models["hybrid"]["hybrid"](0).tokenizer.encode(f"{text}\n\n")]
    size, last = options.tokens, min(192, options.tokens // 4)
    cut = [stream[start : start + size] for start in range(0, len(stream) - size, size)][: options.plain]
    result: dict[str, Any] = {}
    rows: list[list[object]] = [["model", "off", "nats a token more (95 %)"]]
    for name, sides in models.items():
        found = compare(sides, [(ids[: -last - 1], [(ids[-last - 1 : -last], ids[-last:])]) for ids in cut], f"plain, {name}")
        whole, *others = found
        for other in others:
            falls = found[whole][:, 1] - found[other][:, 1]
            interval = bootstrap(np.stack([falls, np.full(len(falls), last)], axis=1))
            result.setdefault(name, {})[other] = [falls.mean() / last, interval.low, interval.high]
            rows.append([name, other, f"{falls.mean() / last:+.4f} ({interval.low:+.4f} – {interval.high:+.4f})"])
    show(f"{len(cut)} plain texts, the last {last} of {size:,} tokens", rows)
    return result


def short_part(options: argparse.Namespace, models: dict[str, dict[str, Side]], texts: Sequence[str], reach: Reach) -> dict[str, Any]:
    """Texts within a window: the largest change of an answer's log-probability, in nats."""
    tokenizer, size = models["hybrid"]["hybrid"](0).tokenizer, min(reach[0], 400)
    cut = [ids for text in texts if len(ids := tokenizer.encode(text)[:size]) >= 60][: options.plain]
    result: dict[str, Any] = {}
    for name, sides in models.items():
        found = compare(sides, [(ids[:-25], [(ids[-25:-24], ids[-24:])]) for ids in cut], f"short, {name}")
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
    parser.add_argument("--texts", type=int, default=20, help=f"with {FACTS} facts each")
    parser.add_argument("--tokens", type=int, default=1280, help="of each text")
    parser.add_argument("--plain", type=int, default=12, help="texts of the parts plain and short")
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
    texts = [text.text for text in part(xsum_texts(home, lambda *_: None), "held_out", XSUM_HELD_OUT)]
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
