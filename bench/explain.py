"""Whether an explanation is right: what an answer really loses, against what each method says it loses.

    python bench/explain.py                              # all parts
    python bench/explain.py --part faithful --answers 8
    python bench/explain.py --part time --model smollm2

  faithful  30 summaries of BBC news and 30 planted facts, 10 to 25 sentences each: for every method of explain/methods the rank correlation
            (LDS) of predicted and real falls over 64 random halves that no method saw, and the real fall when its best 1 and 3 are left out
  planted   a fact in a text: is its sentence named first? Without it in the text: is a sentence said to decide that does not?
  twice     the fact stands there twice: is it said that no single place decides?
  time      seconds and tokens for prompts of up to 512, and of 4,096 tokens

Falls are nats of the answer's log-probability, on the served model. Random removal of as many sentences stands beside every figure.
Intervals: 95 %, bootstrap over answers, Wilson's for shares.
"""

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from harness import finish, show
from ingle.core.message import Message, Request
from ingle.core.progress import silent
from ingle.engine.answer import answer
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.explain.cause import AnswerSpan, Said, Why, said_by
from ingle.explain.direct import direct_reader
from ingle.explain.falls import Falls, Left, method, methods
from ingle.explain.methods.context_cite import fitted
from ingle.explain.prompt_sentences import spans
from ingle.explain.why import WhyOptions, explain
from ingle.explain.words import row_of, shares_blame
from ingle.home.kept import get_kept
from ingle.home.place import Home, find_home
from ingle.measure.data_sets import XSUM_ASK, cut_at_line, xsum_texts
from ingle.measure.intervals import bootstrap, paired_bootstrap, wilson
from ingle.measure.suites import KINDS, Fact, make_fact
from servers import say

PARTS = ("faithful", "planted", "twice", "time")
MARGIN = 0.5
"""Share of sentences that stay in a random half."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One answer to explain."""

    kind: str
    said: Said
    planted: str = ""
    """The sentence that holds the answer, if there is one."""
    right: bool = False


def said_to(model: LanguageModel, request: Request) -> Said:
    """The model's answer."""
    return said_by(model, request, answer(model, request))


def articles(home: Home, least: int, most: int, characters: int) -> list[list[str]]:
    """The sentences of BBC articles that have so many, the longer ones cut to so many characters."""
    found = []
    for text in xsum_texts(home, silent):
        body = cut_at_line(text.text, characters)
        pieces = [" ".join(body[start:end].split()) for start, end in spans(body)]
        if least <= len(pieces) <= most:
            found.append(pieces)
    return found


def summary(model: LanguageModel, pieces: Sequence[str]) -> Case:
    """A summary of an article in one sentence."""
    text = XSUM_ASK.replace("{text}", " ".join(pieces))
    return Case("summary", said_to(model, Request((Message.of("user", text),), max_tokens=24)))


def planted(model: LanguageModel, pieces: Sequence[str], fact: Fact, draw: random.Random, copies: int = 1) -> Case:
    """A fact among the sentences, asked for at the end; `copies`: how often it stands there."""
    text = [*pieces]
    for _ in range(copies):
        text.insert(draw.randrange(len(text) + 1), fact.said)
    said = said_to(model, Request(prompt=" ".join(text) + f" {fact.asked}", max_tokens=12))
    said = until_said(said, fact.answer)
    return Case("planted", said, fact.said if copies else "", said.text.strip().startswith(fact.answer))


def until_said(said: Said, words: str) -> Said:
    """The answer up to the last of these words, if it begins with them: what follows is not about them."""
    end = 0
    for number, piece in enumerate(said.pieces, 1):
        end += len(piece)
        if "".join(said.pieces[:number]).strip().startswith(words):
            return Said(said.model, said.request, said.tokens[:number], said.pieces[:number])
    return said


def cases(model: LanguageModel, home: Home, count: int, seed: int) -> list[Case]:
    """Half summaries, half planted facts."""
    draw = random.Random(seed)
    some = articles(home, 10, 24, 1800)
    draw.shuffle(some)
    half = count // 2
    found = [summary(model, pieces) for pieces in some[:half]]
    facts = [make_fact(KINDS[i % len(KINDS)], draw) for i in range(count - half)]
    return found + [planted(model, pieces[:12], fact, draw) for pieces, fact in zip(some[half:], facts, strict=False)]


def lds(predicted: Values, actual: Values) -> float:
    """Spearman's rank correlation; ties share their rank, and a constant prediction counts as 0."""
    a, b = (_ranks(values) for values in (predicted, actual))
    return 0.0 if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Values) -> Values:
    order, ranks = np.argsort(values), np.empty(len(values))
    ranks[order] = np.arange(len(values))
    for value in np.unique(values):
        same = values == value
        ranks[same] = ranks[same].mean()
    return ranks


def faithful(model: LanguageModel, some: Sequence[Case], ablations: int) -> dict[str, list[dict[str, float]]]:
    """For every method, a row for each answer."""
    named = {name: method(name) for name in methods()} | {"context_cite_64": lambda f, a, s: fitted(f, 64, s)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in named}
    for number, case in enumerate(some, 1):
        truth = Falls(direct_reader(), case.said, AnswerSpan(0, len(case.said.text)))
        kept = np.random.default_rng(1000 + number).random((ablations, len(truth.causes))) < MARGIN
        sets = [Left(i for i, stays in zip(truth.causes, row, strict=True) if not stays) for row in kept]
        actual = np.array(truth.of(sets))
        singles = np.array(truth.of([Left({i}) for i in truth.causes]))
        drawn = np.random.default_rng(number)
        chance = {k: np.mean(truth.of([Left(drawn.choice(truth.causes, k, replace=False).tolist()) for _ in range(8)])) for k in (1, 3)}
        for name, propose in named.items():
            falls = Falls(direct_reader(), case.said, AnswerSpan(0, len(case.said.text)))
            scores = propose(falls, case.said.text, number)
            best = [truth.causes[i] for i in np.argsort(-scores, kind="stable")]
            one, three = truth.of([Left(best[:1]), Left(best[:3])])
            rows[name].append({
                "lds": lds((~kept) @ np.where(np.isfinite(scores), scores, 0.0), actual), "top1": one, "top3": three,
                "best1": float(singles.max()), "chance1": float(chance[1]), "chance3": float(chance[3]), "tokens": falls.read_tokens,
                "first": float(bool(case.planted) and truth.sentences[best[0]].text.strip() == case.planted),
                "planted": float(bool(case.planted) and case.right), "summary": float(case.kind == "summary"),
            })  # fmt: skip
        if number % 5 == 0:
            say(f"faithful: {number} of {len(some)} answers")
    return rows


def tell_faithful(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, object]:
    """The table; returns its figures."""
    table: list[tuple[str, ...]] = [("method", "LDS (95 %)", "summaries", "planted", "top 1", "top 3", "of the best 1", "tokens")]
    figures: dict[str, object] = {}
    best3 = np.max([[row["top3"] for row in rows[name]] for name in rows], axis=0)
    for name, some in sorted(rows.items(), key=lambda pair: -float(np.mean([row["lds"] for row in pair[1]]))):
        values = np.array([row["lds"] for row in some])
        kinds = [np.mean([row["lds"] for row in some if row["summary"] == kind] or [np.nan]) for kind in (1.0, 0.0)]
        interval = bootstrap(np.column_stack([values, np.ones(len(values))]))
        share = sum(row["top1"] for row in some) / sum(row["best1"] for row in some)
        tops = [float(np.mean([row[top] for row in some])) for top in ("top1", "top3")]
        table.append((
            name, f"{values.mean():.2f} ({interval.low:.2f} … {interval.high:.2f})", *(f"{kind:.2f}" for kind in kinds),
            *(f"{top:.1f}" for top in tops), f"{share:.2f}", f"{np.mean([row['tokens'] for row in some]):.0f}",
        ))  # fmt: skip
        figures[name] = {"lds": float(values.mean()), "interval": [interval.low, interval.high], "tops": tops, "of_best1": share,
                         "of_best3": float(sum(row["top3"] for row in some) / best3.sum())}  # fmt: skip
    chance = [float(np.mean([row[name] for row in next(iter(rows.values()))])) for name in ("chance1", "chance3")]
    table.append(("random sets (mean of 8)", "", "", "", *(f"{value:.1f}" for value in chance), "", ""))
    show("faithful: what each method says against what the answer really loses", table)
    ours = np.array([[row["lds"], 1.0] for row in rows["leave_one_out"]])
    for other in rows:
        theirs = np.array([[row["lds"], 1.0] for row in rows[other]])
        if other != "leave_one_out":
            change = paired_bootstrap(theirs, ours)
            print(f"leave_one_out less {other}: {change.value:+.3f} ({change.interval.low:+.3f} … {change.interval.high:+.3f})")
    return {"methods": figures, "chance": chance}


def why_of(case: Case) -> Why:
    """The explanation as a user gets it."""
    *_, why = explain(direct_reader(), case.said, (), WhyOptions())
    assert isinstance(why, Why)
    return why


def tell_planted(model: LanguageModel, home: Home, count: int, seed: int) -> dict[str, object]:
    """Facts that are there, and facts that are not."""
    draw, some = random.Random(seed), articles(home, 10, 24, 1800)
    draw.shuffle(some)
    first, overlap, said_to_decide, kept = [], [], [], []
    for i in range(2 * count):
        fact = make_fact(KINDS[i % len(KINDS)], draw)
        pieces = some[i % len(some)][:12]
        there = planted(model, pieces, fact, draw)
        if there.right and len(first) < count:
            why = why_of(there)
            first.append(bool(why.causes) and why.causes[0].cause.text == there.planted)
            falls = Falls(direct_reader(), there.said, AnswerSpan(0, len(there.said.text)))
            scores = method("overlap")(falls, there.said.text, 0)
            overlap.append(falls.sentences[falls.causes[int(np.argmax(scores))]].text.strip() == there.planted)
        if len(kept) < count // 2:
            why = why_of(planted(model, pieces, fact, draw, copies=0))
            kept.append(True)
            said_to_decide.append(any(row_of(one) == "decides" for one in why.causes))
        if (i + 1) % 20 == 0:
            say(f"planted: {len(first)} of {count} right answers")
        if len(first) == count:
            break
    table = [("what", "share", "95 %", "n")]
    table.append(("right answers whose fact is named first", *shares(first)))
    table.append(("  word overlap names it first", *shares(overlap)))
    table.append(("no fact there: a sentence is said to decide (and the answer is another one without it)", *shares(said_to_decide)))
    show("planted", table)
    return {"first": float(np.mean(first)), "overlap": float(np.mean(overlap)), "unanswerable_named": float(np.mean(said_to_decide))}


def tell_twice(model: LanguageModel, home: Home, count: int, seed: int) -> dict[str, object]:
    """Facts that stand there twice."""
    draw, some = random.Random(seed + 1), articles(home, 10, 24, 1800)
    draw.shuffle(some)
    flagged, single = [], []
    for i in range(3 * count):
        case = planted(model, some[i % len(some)][:12], make_fact(KINDS[i % len(KINDS)], draw), draw, copies=2)
        if not case.right:
            continue
        why = why_of(case)
        flagged.append(why.together is not None and shares_blame(why.together))
        single.append(any(row_of(one) == "decides" and one.cause.text == case.planted for one in why.causes))
        if len(flagged) % 20 == 0:
            say(f"twice: {len(flagged)} of {count}")
        if len(flagged) == count:
            break
    table = [("what", "share", "95 %", "n"), ("it is said that several places say it", *shares(flagged))]
    table.append(("one of them is said to decide", *shares(single)))
    show("twice", table)
    return {"flagged": float(np.mean(flagged)), "single": float(np.mean(single))}


def tell_time(model: LanguageModel, home: Home, count: int, seed: int) -> dict[str, object]:
    """Seconds of explanations, by the prompt's length."""
    draw, figures = random.Random(seed + 2), {}
    short, long = articles(home, 10, 24, 1700), articles(home, 10, 400, 1 << 20)
    draw.shuffle(short)
    draw.shuffle(long)
    table = [("prompt", "tokens", "read", "seconds, median", "95 % of them within", "n")]
    for name, many, make in (("to 512 tokens", count, partial(_short, short)), ("4,096 tokens", max(3, count // 4), partial(_long, long))):
        took, read, size = [], [], []
        for i in range(many):
            case = planted(model, make(model, i), make_fact(KINDS[i % len(KINDS)], draw), draw)
            began = time.perf_counter()
            why = why_of(case)
            took.append(time.perf_counter() - began)
            read.append(why.read_tokens)
            size.append(len(model.encode(case.said.request)))
        table.append((
            name, f"{np.median(size):.0f}", f"{np.median(read):.0f}", f"{np.median(took):.2f}", f"{np.quantile(took, 0.95):.2f}", str(many)
        ))  # fmt: skip
        figures[name] = {"median_s": float(np.median(took)), "p95_s": float(np.quantile(took, 0.95)), "read": float(np.median(read))}
    show("time", table)
    return figures


def _short(some: Sequence[Sequence[str]], model: LanguageModel, number: int) -> list[str]:
    return _filled(model, some[number % len(some)], 460)


def _long(some: Sequence[Sequence[str]], model: LanguageModel, number: int) -> list[str]:
    return _filled(model, [piece for text in (*some[number * 9 :], *some) for piece in text], 4020)


def _filled(model: LanguageModel, pieces: Sequence[str], most: int) -> list[str]:
    """As many sentences as fit in so many tokens."""
    taken, left = list[str](), most
    for piece in pieces:
        left -= len(model.tokenizer.encode(" " + piece))
        if left < 0:
            break
        taken.append(piece)
    return taken


def shares(marks: Sequence[bool]) -> tuple[str, str, str]:
    """Share, interval, n."""
    interval = wilson(sum(marks), len(marks))
    return f"{sum(marks) / len(marks):.3f}", f"{interval.low:.3f}–{interval.high:.3f}", str(len(marks))


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--answers", type=int, default=60, help="answers of part faithful")
    parser.add_argument("--facts", type=int, default=200, help="right answers of parts planted and (half of them) twice")
    parser.add_argument("--ablations", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    home = find_home()
    model = open_model(kept_source(home, get_kept(home, args.model)))
    parts, results = args.part or PARTS, dict[str, object]()
    if "faithful" in parts:
        results["faithful"] = tell_faithful(faithful(model, cases(model, home, args.answers, args.seed), args.ablations))
    if "planted" in parts:
        results["planted"] = tell_planted(model, home, args.facts, args.seed)
    if "twice" in parts:
        results["twice"] = tell_twice(model, home, args.facts // 2, args.seed)
    if "time" in parts:
        results["time"] = tell_time(model, home, 20, args.seed)
    finish("explain", {"model": args.model, **results})


if __name__ == "__main__":
    main()
