"""How sure: odds of being right on questions that no calibration saw, beside the model's own probability; and twins, found by attribution.

    python bench/explain_sure.py [--model smollm2] [--questions 170] [--corrections 100] [--home DIR] [--fit]

The odds are those of the home's calibration, or of the one that Ingle brings; `--fit` first makes one from the training part. Held out are:
questions of the other part (other documents, other general questions, other facts), and corrections of `bench/adapt_data.py`, asked for in
other words, with the right memory and without one. The baseline is exp(mean log-probability) of the same answers. A *twin* is a planted
sentence about another place: it counts where the answer copies it. Intervals: 95 %, bootstrap over questions (2,000), Wilson for shares.
Answers are kept in the home: an interrupted run goes on.
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapt_data import read
from adapt_home import FOLDER
from harness import finish, show
from ingle.adapt.memory import placed
from ingle.app.settings import read_settings
from ingle.cli.choose import open_watched
from ingle.core.config import from_table
from ingle.core.example import Example
from ingle.core.message import Message, Request
from ingle.explain.calibrate import MAX_TOKENS, KnownQuestion, answers_of, ask_known, calibration_of, known_questions
from ingle.explain.cause import Odds, SureSignals
from ingle.explain.direct import direct_reader
from ingle.explain.odds import KINDS, Calibration, auroc, calibration_error, find_calibration
from ingle.explain.traces import TaughtText, traces
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.measure.data_sets import Question, boolq
from ingle.measure.intervals import wilson
from ingle.measure.subjects import Row
from servers import say

DRAWS = 2000
TRACED_WORDS = 1_000_000
_PLANTED = re.compile(r"The (?:secret number of \w+ is|keeper of the [\w ]+? is called|note under the [\w ]+? says that) ([\w ]+)\.")


def corrections(count: int) -> list[KnownQuestion]:
    """Corrections in other words, with their memory and without it."""
    found = []
    for one in read("test").first(count).corrections:
        request = Request((Message.of("user", one.paraphrases[0]),), max_tokens=MAX_TOKENS)
        example = Example(one.id, "", "", "correction", one.question, one.answer)
        found += [
            KnownQuestion(f"{one.id}/taught", "correction, taught", request, one.accept, example),
            KnownQuestion(f"{one.id}/untaught", "correction, untaught", request, one.accept),
        ]
    return found


def interval(statistic: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """95 % of a bootstrap over questions."""
    draw = np.random.default_rng(0)
    picks = (draw.integers(0, len(right), len(right)) for _ in range(DRAWS))
    values = [statistic(scores[pick], right[pick]) for pick in picks]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def figures(name: str, scores: np.ndarray, right: np.ndarray) -> tuple[tuple[str, ...], dict[str, Any]]:
    """A row of the table, and the same as values."""
    table: dict[str, Any] = {"n": len(right), "right": int(right.sum())}
    cells = []
    for figure, statistic in (("ece", calibration_error), ("auroc", auroc)):
        value = statistic(scores, right)
        table[figure] = value
        if np.isfinite(value):
            low, high = interval(statistic, scores, right)
            table[f"{figure}_interval"] = [low, high]
            cells.append(f"{value:.3f} ({low:.3f}–{high:.3f})")
        else:
            cells.append("–")
    return (name, str(len(right)), f"{right.mean():.2f}", *cells), table


def odds_of(row: Row, calibration: Calibration) -> Odds | None:
    """The odds that `ingle why` would name for this answer."""
    fit = next((one for one in calibration.kinds if one.kind == row["kind"]), None)
    signals = from_table(SureSignals, row["signals"]) if row["signals"] else None
    return None if fit is None or signals is None or signals.tokens > fit.longest else fit.odds(signals)


def sureness(rows: Sequence[Row], calibration: Calibration) -> dict[str, Any]:
    """Show and return how well the odds agree with what was right."""
    told = [(row, odds) for row in rows if (odds := odds_of(row, calibration)) is not None]
    right = np.array([bool(row["right"]) for row, _ in told])
    said = np.array([odds.p for _, odds in told])
    plain = np.exp([row["signals"]["mean"] for row, _ in told])
    table, results = [("answers", "n", "right", "ECE", "AUROC")], {"not_told": len(rows) - len(told)}
    alike = np.array([not row["case"].startswith("correction") for row, _ in told])
    groups = {
        "all: odds": slice(None),
        "all but corrections: odds": alike,
        **{kind: np.array([row["kind"] == kind for row, _ in told]) for kind in KINDS},
    }
    groups |= {
        case: np.array([row["case"] == case for row, _ in told]) for case in ("correction, taught", "correction, untaught", "yes_no")
    }
    for name, which in groups.items():
        if len(right[which]):
            cells, results[name] = figures(name, said[which], right[which])
            table.append(cells)
    cells, results["plain"] = figures("all: exp(mean log-prob)", plain, right)
    table.append(cells)
    low, high = np.array([odds.low for _, odds in told]), np.array([odds.high for _, odds in told])
    bins = [part for part in np.array_split(np.argsort(said), 10) if len(part)]
    covered = [bool(low[part].mean() <= right[part].mean() <= high[part].mean()) for part in bins]
    tenths = [(float(said[part].mean()), float(right[part].mean()), len(part)) for part in bins]
    results["tenths"] = tenths
    results["covered"] = sum(covered)
    draw = np.random.default_rng(0)
    results["ece_of_true_odds"] = float(np.mean([calibration_error(said, draw.random(len(said)) < said) for _ in range(DRAWS)]))
    show("how sure, on held-out questions", table)
    show(
        "odds said and shares seen, in tenths",
        [("said", "seen", "n"), *((f"{a:.2f}", f"{b:.2f}", str(n)) for a, b, n in tenths)],
    )
    say(f"odds that are exactly right would have an ECE of {results['ece_of_true_odds']:.3f} on so many questions, by chance")
    say(f"the mean interval holds the share seen in {sum(covered)} of {len(bins)} tenths; no odds for {results['not_told']} answers")
    return results


def twins(rows: Sequence[Row], questions: Sequence[KnownQuestion]) -> dict[str, Any]:
    """Show and return how many copied twins attribution finds, and how often it takes a true fact for one."""
    marks: dict[str, list[bool]] = {
        "twins, copied": [],
        "twins, all": [],
        "true facts, answered right": [],
        "true facts, all": [],
        "BoolQ": [],
    }
    for row, question in zip(rows, questions, strict=True):
        found = row["kind"] == "elsewhere"
        if question.case == "twin":
            marks["twins, all"].append(found)
            if (secret := _PLANTED.search(question.text)) and secret.group(1).lower() in row["answer"].lower():
                marks["twins, copied"].append(found)
        elif question.case in ("there", "earlier"):
            marks["true facts, all"].append(found)
            if row["right"]:
                marks["true facts, answered right"].append(found)
        elif question.case == "yes_no":
            marks["BoolQ"].append(found)
    table, results = [("found to be about another name", "share", "95 %", "n")], {}
    for name, found_ones in marks.items():
        if found_ones:
            around = wilson(sum(found_ones), len(found_ones))
            share = sum(found_ones) / len(found_ones)
            results[name] = {"share": share, "low": around.low, "high": around.high, "n": len(found_ones)}
            table.append((name, f"{share:.3f}", f"{around.low:.3f}–{around.high:.3f}", str(len(found_ones))))
    show("twins", table)
    return results


def trace_seconds(passages: Sequence[Question]) -> dict[str, float]:
    """Show and return how long traces take in a million words that nothing was prepared for."""
    words = " ".join(one.ask for one in passages).split()
    text = " ".join((words * (1 + TRACED_WORDS // len(words)))[:TRACED_WORDS])
    said = " ".join(["It", "says", *words[5000:5030], "and", "also", *words[70_000:70_012]])
    walls, cpus = [], []
    for _ in range(7):
        wall, cpu = time.perf_counter(), time.process_time()
        found = traces(said, [TaughtText("text", text)])
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    assert found[0].words >= 30, "the planted run must be found"
    say(f"traces in {TRACED_WORDS:,} words: {np.median(walls):.3f} s, of the processor {np.median(cpus):.3f} s (medians of 7)")
    return {"wall_s": float(np.median(walls)), "cpu_s": float(np.median(cpus)), "words": TRACED_WORDS}


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--questions", type=int, default=170)
    parser.add_argument("--corrections", type=int, default=100)
    parser.add_argument("--home", type=Path, default=FOLDER.parent / "explain")
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    home = Home(args.home.absolute())
    model = open_watched(home, get_kept(home, args.model), read_settings(home, ()).chat)
    passages, kept, reader = boolq(home, lambda *_: None), answers_of(model, home), direct_reader()

    def asked(questions: Sequence[KnownQuestion], name: str) -> list[Row]:
        def progress(_label: str, done: int, of: int) -> None:
            if done % 50 == 0 or done == of:
                say(f"{name}: {done} of {of}")

        return ask_known(reader, model, questions, placed, kept, progress)

    if args.fit:
        calibration = calibration_of(model.digest, asked(known_questions(passages, "train", args.questions), "training part"))
    else:
        found = find_calibration(home, model.digest)
        if found is None:
            raise SystemExit(f"{args.model} is not calibrated here: `ingle why --calibrate {args.model}`, or --fit")
        calibration = found
    questions = known_questions(passages, "held_out", args.questions)
    rows = asked(questions, "held-out part")
    others = asked(corrections(args.corrections), "corrections")
    results = {"model": model.digest, "fitted": {one.kind: [one.right, one.n] for one in calibration.kinds}}
    results |= {"traces": trace_seconds(passages), "sure": sureness([*rows, *others], calibration), "twins": twins(rows, questions)}
    finish("explain_sure", results)


if __name__ == "__main__":
    main()
